"""Find a safe way through a terrain that is only seen: what does a network learn through a path and its interdiction?

A map is a picture, 8 x 8 pixels a tile. Five kinds of terrain, each with its colour and its cost z, and red marks for
the damage w of a tile, which is what it costs more once it has been raised. A follower walks from corner to corner, a
leader then raises three tiles, and the follower knows that: min_y max_x <z + x * w, y>, a
`combinatorial.Interdiction`. A small convolutional network reads both costs off the picture. How it is trained:

- two-stage: regression on the true costs of all tiles; the others, but for the next, only see who did what;
- two-stage + residual: also the excess of the true points' predicted value over that of the predicted game;
- BB fixed, BB bilevel, PT: through both levels, by blackbox differentiation with the other level fixed or of both
  (Hamming distance to the true points), or by pass-through (squared distance);
- BB-1, ST-1: through the path alone, as if there were no leader; at the test with a damage that was never trained, or
  with one from a regression of its own (+ w);
- SL: a network that looks wider learns tiles and path as labels, no solver; it answers the three likeliest tiles and
  the path of least 1 - p.

The set-up is our own. Costs learnt from points have no scale, so they are divided by their map's mean of z. Judged with
the true costs: a path is optimal if it is worth the game's value once the best leader has answered it, raised tiles if
they are a best answer to the path predicted with them. Regrets are shares of the game's value.

Three seeds: of those that only see who did what, both levels are by far the best (both optimal in 41 to 45 % of maps
for PT, 30 to 44 % for BB bilevel, at most 11 % for one level), but a path learnt alone with a damage regressed on true
values is as good or better (44 to 50 %), with less regret. Two-stage learning beats both levels at 12 x 12 (47 %), not
at the larger sizes (26 and 19 %), and has the least leader's regret or nearly so. BB fixed hardly learns the damage.

python examples/terrain_interdiction.py [--quick] [--out runs/terrain_interdiction.json]

A run that was stopped goes on where it was.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, binary_cross_entropy_with_logits, mse_loss

from bigrad.combinatorial import BilevelBlackbox, Blackbox, Interdiction, ShortestPath, StraightThrough, TopK
from bigrad.layers import BilevelCombinatorial, Combinatorial

COSTS, DAMAGES, BUDGET = (0.8, 1.2, 5.3, 7.7, 9.2), (1.0, 4.0, 7.0, 10.0), 3
COLOURS = ((0.80, 0.72, 0.45), (0.40, 0.65, 0.25), (0.10, 0.35, 0.12), (0.50, 0.45, 0.50), (0.15, 0.30, 0.65))
NOISE = {"tile": 0.03, "mark": 0.03, "pixel": 0.1}
LR, BATCH = 1e-2, 10
STEPS = {"BB fixed": 1.0, "BB bilevel": 0.3, "BB-1": 0.3}  # chosen on maps of another seed
SHARES = ("follower optimal", "leader optimal", "both optimal", "exact tiles", "exact path", "exact both")
REGRETS = ("follower's regret", "leader's regret")
GAME = Interdiction(ShortestPath(), budget=BUDGET)
Loss = Callable[[Tensor, Tensor, "Maps"], Tensor]
Table = dict[str, dict[str, dict[str, list[float]]]]  # size, method and what to mean and standard deviation


@dataclass
class Maps:
    images: Tensor  # (B, 3, 8 n, 8 n)
    z: Tensor  # costs, damages, raised tiles and paths (B, n, n)
    w: Tensor
    x: Tensor
    y: Tensor

    def at(self, rows: Tensor | slice) -> "Maps":
        return Maps(*(part[rows] for part in vars(self).values()))


def smooth(count: int, size: int, times: int, generator: torch.Generator) -> Tensor:
    field = torch.randn(count, size + 2 * times, size + 2 * times, generator=generator)
    for _ in range(times):
        field = avg_pool2d(field, 3, 1)
    field = field - field.mean((1, 2), keepdim=True)
    return field / field.std((1, 2), keepdim=True)


def draw_maps(count: int, size: int, generator: torch.Generator) -> Maps:
    kind = torch.bucketize(smooth(count, size, 2, generator), torch.tensor([-0.8, -0.25, 0.25, 0.8]))
    mark = torch.bucketize(smooth(count, size, 1, generator), torch.tensor([-0.5, 0.2, 0.8]))
    z, w = torch.tensor(COSTS)[kind], torch.tensor(DAMAGES)[mark]
    colour = torch.tensor(COLOURS)[kind] + NOISE["tile"] * torch.randn(*kind.shape, 3, generator=generator)
    red = 0.2 * mark + NOISE["mark"] * torch.randn(mark.shape, generator=generator)
    centre = torch.zeros(8, 8)
    centre[2:6, 2:6] = 1
    painted = red[..., None, None, None] * torch.tensor([1, -0.5, -0.5])[:, None, None] * centre
    tiles = colour[..., None, None] + painted  # (B, n, n, 3, 8, 8)
    tiles = tiles + NOISE["pixel"] * torch.randn(tiles.shape, generator=generator)
    images = tiles.permute(0, 3, 1, 4, 2, 5).reshape(count, 3, 8 * size, 8 * size)
    return Maps(images, z, w, *GAME(z, w))


def draw_world(size: int, seed: int, counts: tuple[int, int, int]) -> tuple[Maps, Maps, torch.Generator]:
    """The maps of training and test, and what draws the batches."""
    generator = torch.Generator().manual_seed(1000 * size + seed)
    maps = draw_maps(counts[0] + counts[1], size, generator)
    return maps.at(slice(counts[0])), maps.at(slice(counts[0], None)), generator


class Reader(nn.Module):
    """A network from pictures (B, 3, 8 n, 8 n) to two numbers a tile, (B, n, n) each."""

    def __init__(self, wide: bool = False) -> None:
        super().__init__()
        parts: list[nn.Module] = [nn.Conv2d(3, 32, 4, 4), nn.ReLU(), nn.Conv2d(32, 64, 2, 2), nn.ReLU()]
        for reach in (1, 2, 4, 8) if wide else ():
            parts += [nn.Conv2d(64 if reach == 1 else 32, 32, 3, padding=reach, dilation=reach), nn.ReLU()]
        width = 32 if wide else 64
        parts += [nn.Conv2d(width, 64, 1), nn.ReLU(), nn.Conv2d(64, 2, 1)]
        self.layers, self.wide = nn.Sequential(*parts), wide

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        first, second = self.layers((images - 0.4) / 0.25).unbind(1)
        return (first, second) if self.wide else ((first + 3).abs(), (second + 3).abs())


def distance(point: Tensor, true: Tensor, estimator: Any) -> Tensor:
    """Squared where the gradient is passed through, Hamming where it is for a difference."""
    squared = isinstance(estimator, StraightThrough)
    return (0.5 * (point - true).square() if squared else point + true - 2 * point * true).sum()


def through_the_game(estimator: Any) -> Loss:
    layer = BilevelCombinatorial(GAME, estimator, on_zero_gradient="ignore")

    def loss(z: Tensor, w: Tensor, maps: Maps) -> Tensor:
        x, y = layer(z / z.mean((1, 2), keepdim=True), w / z.mean((1, 2), keepdim=True))
        return distance(x, maps.x, estimator) + distance(y, maps.y, estimator)

    return loss


def through_the_path(estimator: Any) -> Loss:
    layer = Combinatorial(ShortestPath(), estimator, on_zero_gradient="ignore")
    return lambda z, w, maps: distance(layer(z / z.mean((1, 2), keepdim=True)), maps.y, estimator)


def regression(z: Tensor, w: Tensor, maps: Maps) -> Tensor:
    return mse_loss(z, maps.z) + mse_loss(w, maps.w)


def regression_and_residual(z: Tensor, w: Tensor, maps: Maps) -> Tensor:
    excess = GAME.value(z, w, maps.x, maps.y) - GAME.value(z, w, *GAME(z, w))
    return regression(z, w, maps) + excess.mean()


def imitation(tiles: Tensor, path: Tensor, maps: Maps) -> Tensor:
    return binary_cross_entropy_with_logits(tiles, maps.x) + binary_cross_entropy_with_logits(path, maps.y)


LOSSES: dict[str, Loss] = {
    "two-stage": regression,
    "two-stage + residual": regression_and_residual,
    "BB fixed": through_the_game(Blackbox(STEPS["BB fixed"])),
    "BB bilevel": through_the_game(BilevelBlackbox(STEPS["BB bilevel"])),
    "PT": through_the_game(StraightThrough()),
    "BB-1": through_the_path(Blackbox(STEPS["BB-1"])),
    "ST-1": through_the_path(StraightThrough()),
    "SL": imitation,
}


def train(network: Reader, loss: Loss, maps: Maps, epochs: int, generator: torch.Generator) -> float:
    """The CPU seconds it took."""
    optimizer, began = torch.optim.Adam(network.parameters(), lr=LR), time.process_time()
    batches = [rows for _ in range(epochs) for rows in torch.randperm(len(maps.z), generator=generator).split(BATCH)]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=len(batches))
    for rows in batches:
        batch = maps.at(rows)
        optimizer.zero_grad()
        loss(*network(batch.images), batch).backward()
        optimizer.step()
        schedule.step()
    return time.process_time() - began


def judge(x: Tensor, y: Tensor, maps: Maps) -> dict[str, float]:
    """What predicted tiles and paths are worth under the true costs."""
    value, harm = GAME.value(maps.z, maps.w, maps.x, maps.y), (maps.w * x * y).sum((1, 2))
    most = (maps.w * y).flatten(1).topk(BUDGET).values.sum(1)
    worth = (maps.z * y).sum((1, 2)) + most
    follower, leader = worth <= value * (1 + 1e-5), harm >= most - 1e-5 * value
    tiles, path = ((found == true).flatten(1).all(1) for found, true in ((x, maps.x), (y, maps.y)))
    rows = (follower, leader, follower & leader, tiles, path, tiles & path, worth / value - 1, (most - harm) / value)
    return {name: float(row.double().mean()) for name, row in zip((*SHARES, *REGRETS), rows, strict=True)}


def run(size: int, seed: int, method: str, counts: tuple[int, int, int]) -> dict[str, dict[str, Any]]:
    """Train and test one method; the rows of the table that it gives."""
    known, maps, generator = draw_world(size, seed, counts)
    torch.manual_seed(seed)
    network = Reader(wide=method == "SL")
    seconds = train(network, LOSSES[method], known, counts[-1], generator)
    with torch.no_grad():
        first, second = network(maps.images)
    found = {}
    if method == "SL":
        found[method] = TopK(BUDGET)(first.flatten(1)).view_as(first), ShortestPath()(1 - second.sigmoid())
    else:
        found[method] = GAME(first, second)
    if method in ("BB-1", "ST-1"):
        other = Reader()
        seconds += train(other, lambda z, w, maps: mse_loss(w, maps.w), known, counts[-1], generator)
        with torch.no_grad():
            damage = other(maps.images)[1]
        unit = known.z.mean() / first.mean((1, 2), keepdim=True)  # the scale that paths do not tell
        found[f"{method} + w"] = GAME(first * unit, damage)
    rows: dict[str, dict[str, Any]] = {}
    for name, (x, y) in found.items():
        rows[name] = judge(x, y, maps) | {"CPU seconds": round(seconds, 1)}
        rows[name]["first map"] = {"tiles": x[0].nonzero().tolist(), "path": y[0].nonzero().tolist()}
    return rows


def summary(runs: dict[str, dict[str, dict[str, Any]]], seeds: int) -> Table:
    """Of each size and method the mean and the standard deviation over the seeds."""
    found: Table = {}
    for size in dict.fromkeys(key.split(",")[0] for key in runs):
        keys = [f"{size}, seed {seed}" for seed in range(seeds)]
        of_size = [runs[key] for key in keys if key in runs]
        for name, what in product(of_size[0], (*SHARES, *REGRETS, "CPU seconds")):
            values = [rows[name][what] for rows in of_size if name in rows]
            spread = stdev(values) if len(values) > 1 else 0.0
            found.setdefault(size, {}).setdefault(name, {})[what] = [mean(values), spread]
    return found


def show(found: Table) -> None:
    shown = (*SHARES[:3], SHARES[-1], *REGRETS)
    for size, rows in found.items():
        print(f"{size:22s}", *(f"{what:>17s}" for what in shown), "   CPU s")
        for name, row in rows.items():
            cells = ("{:9.1f} ± {:4.1f}%".format(*(100 * number for number in row[what])) for what in shown)
            print(f"  {name:20s}", *(f"{cell:>17s}" for cell in cells), f"{row['CPU seconds'][0]:8.1f}")
        for what, best in (("both optimal", max), *((regret, min) for regret in REGRETS)):
            print(f"  best in {what}:", best(rows, key=lambda name: rows[name][what][0]))


def draw(path: Path, record: dict[str, Any], counts: tuple[int, int, int]) -> None:
    figure = Figure(figsize=(13, 7.5), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(1.1, 1))
    size = int(next(reversed(record["mean and deviation"])).split("x")[0])
    _, maps, _ = draw_world(size, 0, counts)
    found = {"true": {"tiles": maps.x[0].nonzero().tolist(), "path": maps.y[0].nonzero().tolist()}}
    of_size = record["runs"][f"{size}x{size}, seed 0"]
    found |= {name: of_size[name]["first map"] for name in ("two-stage", "BB bilevel", "PT", "BB-1 + w", "SL")}
    picture = maps.images[0].permute(1, 2, 0).clamp(0, 1).numpy()
    for panel, (name, points) in zip(top.subplots(1, len(found)), found.items(), strict=True):
        panel.imshow(picture, extent=(-0.5, size - 0.5, size - 0.5, -0.5))
        panel.plot(*zip(*((column, row) for row, column in points["path"]), strict=True), "w.", markersize=4)
        panel.plot(*zip(*((column, row) for row, column in points["tiles"]), strict=True), "ks", fillstyle="none")
        panel.set(title=name, xticks=[], yticks=[])
    top.supxlabel("a test map: path (dots) and raised tiles (squares)", fontsize=9)
    table = record["mean and deviation"]
    for panel, what in zip(bottom.subplots(1, 3), ("both optimal", *REGRETS), strict=True):
        for place, (label, rows) in enumerate(table.items()):
            along = [row + 0.27 * place for row in range(len(rows))]
            means, spreads = zip(*(rows[name][what] for name in rows), strict=True)
            panel.barh(along, means, 0.25, xerr=spreads, label=label)
        panel.set(yticks=[row + 0.27 for row in range(len(rows))], yticklabels=list(rows), title=what)
        panel.invert_yaxis()
    panel.legend()
    figure.savefig(path, dpi=100)


def save(path: Path, record: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".part").write_text(json.dumps(record, indent=1) + "\n")
    os.replace(path.with_suffix(".part"), path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one seed, 12 x 12 only, few maps")
    parser.add_argument("--out", type=Path, help="runs/terrain_interdiction.json, with --quick ..._quick.json")
    parser.add_argument("--seeds", type=int, help="how many; a record can be continued with more")
    settings = parser.parse_args()
    out = settings.out or Path(f"runs/terrain_interdiction{'_quick' if settings.quick else ''}.json")
    sizes, seeds, counts = ((12,), 1, (40, 40, 4)) if settings.quick else ((12, 18, 24), 3, (160, 200, 16))
    setting = {"budget": BUDGET, "order": GAME.order, "costs": [*COSTS], "damages": [*DAMAGES], "noise": NOISE}
    setting |= {"steps": STEPS, "learning rate": LR, "batch": BATCH, "training maps, test maps, epochs": [*counts]}
    seeds = settings.seeds or seeds
    earlier = json.loads(out.read_text()) if out.exists() else {"setting": setting, "runs": {}}
    if earlier["setting"] != setting:
        raise SystemExit(f"{out} has another setting: move it away, or name another --out")
    runs: dict[str, dict[str, Any]] = earlier["runs"]
    versions = {"python": platform.python_version()} | {name: version(name) for name in ("bigrad", "torch", "numba")}
    hardware = {"machine": platform.machine(), "cores": os.cpu_count(), "threads": torch.get_num_threads()}
    record = {"setting": setting, "seeds": list(range(seeds)), "mean and deviation": {}, "versions": versions}
    record |= {"hardware": hardware, "command": " ".join(["python", *sys.argv]), "runs": runs}
    for seed, size, method in product(range(seeds), sizes, LOSSES):
        rows = runs.setdefault(f"{size}x{size}, seed {seed}", {})
        if method not in rows:
            rows |= run(size, seed, method, counts)
            save(out, record)
            print(f"{size}x{size}, seed {seed}, {method}: both optimal {rows[method]['both optimal']:.1%}", flush=True)
    record["mean and deviation"] = summary(runs, seeds)
    save(out, record)
    show(record["mean and deviation"])
    draw(out.with_suffix(".png"), record, counts)
    print(f"picture in {out.with_suffix('.png')}")


if __name__ == "__main__":
    main()
