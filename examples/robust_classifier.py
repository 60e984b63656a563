"""Read digits that forgers have altered: the classifier leads, each forger answers it, and training knows the answer.

The forger of an image x of the digit k wants it to be read as k + 1 (a 9 as a 0), and pays for what it changes:

    delta(W) = argmin_delta  cross_entropy(W(x + delta), k + 1) + price / 2 |delta|^2      (a `layers.ArgMin`)

which is strictly convex, so that there is one answer. The leader minimises cross_entropy(W(x + delta(W)), k), which is
not the negative of what the forgers minimise: it matters how they will answer a change of W. The set-up is our own.
Four ways to train one softmax regression on scikit-learn's digits; half of the last three's loss is plain:

- plain: on the images as they are;
- PGD: on images moved to make the leader's loss worst within a ball, as if they did not depend on W (the usual way);
- one level: against the same forgers as below, as if their answer did not depend on W;
- two levels: with the derivative of the forgers' answer.

Each is tested after its last step, and at the step that was best on validation images, half of them forged: the one
level runs after the forgers in circles and needs that look, more than two levels do. The test has forgers of other
prices too, and PGD, for which only the second is trained, in a ball of the mean size of what forgers do to the plain
classifier.

python examples/robust_classifier.py [--quick] [--out runs/robust_classifier.json]
"""

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable
from importlib.metadata import version
from itertools import product
from pathlib import Path

import torch
from matplotlib.figure import Figure
from scipy import stats
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from bigrad.gradients import WarmStart
from bigrad.layers import ArgMin
from bigrad.solvers import LBFGS

PRICE, RIDGE = 2.0, 1e-4
STRENGTHS = (0.0, 0.125, 0.25, 0.5, 0.75, 1.0)  # of forgers, 1 / price
RADII = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)  # of PGD's ball; an image has a norm of about 3.5
ENDS = ("", ", last step")  # which of two models: where validation was best, or the last
Attack = Callable[[Tensor, Tensor, Tensor], Tensor]  # (W, images, labels) to altered images


def losses(W: Tensor, images: Tensor, labels: Tensor) -> Tensor:
    return cross_entropy(images @ W[:-1] + W[-1], labels, reduction="none")


def forger() -> ArgMin:
    def cost(delta: Tensor, W: Tensor, images: Tensor, labels: Tensor, price: float) -> Tensor:
        return losses(W, images + delta, (labels + 1) % 10) + 0.5 * price * delta.square().sum(-1)

    return ArgMin(cost, lambda W, images, *_: torch.zeros_like(images), solver=LBFGS(rtol=1e-6, atol=1e-8))


def pgd(W: Tensor, images: Tensor, labels: Tensor, radius: float, steps: int = 20) -> Tensor:
    """Projected gradient ascent on the leader's loss in a ball around each image."""
    delta = torch.zeros_like(images, requires_grad=True)
    for _ in range(steps):
        (slope,) = torch.autograd.grad(losses(W.detach(), images + delta, labels).sum(), delta)
        moved = delta.detach() + 0.25 * radius * normalize(slope, dim=-1)
        delta = (radius * moved / moved.norm(dim=-1, keepdim=True).clamp_min(radius + 1e-12)).requires_grad_()
    return images + delta.detach()


def train(attack: Attack, score: Callable[[Tensor], float], X: Tensor, y: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """The W with the best score on the way, and the last one."""
    W = torch.zeros(65, 10, dtype=X.dtype, device=X.device, requires_grad=True)
    optimizer, best, highest = torch.optim.Adam([W], lr=0.02), W, -1.0
    for step in range(1, steps + 1):
        honest, altered = losses(W, X, y), losses(W, attack(W, X, y), y)
        loss = 0.5 * (honest + altered).mean() + RIDGE * W.square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 4 == 0 and (reached := score(W.detach())) > highest:
            best, highest = W.detach().clone(), reached
    return best, W.detach()


def accuracy(W: Tensor, images: Tensor, labels: Tensor) -> float:
    return float((images @ W[:-1] + W[-1]).argmax(-1).eq(labels).double().mean())


def run(seed: int, count: int, tests: int, steps: int, device: str) -> dict[str, dict[str, list[float]]]:
    """Train and test all four on one split of the data."""
    images, labels = (torch.tensor(part).to(device) for part in load_digits(return_X_y=True))
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed)).to(device)
    images, labels = images[order] / 16, labels[order]
    X, y, valid, y_valid = images[:count], labels[:count], images[500:700], labels[500:700]
    layer, warm, warm_valid = forger(), WarmStart(), WarmStart()

    def score(W: Tensor) -> float:
        forged = valid + layer(W, valid, y_valid, PRICE, warm_start=warm_valid)
        return accuracy(W, valid, y_valid) + accuracy(W, forged, y_valid)

    def answered(W: Tensor, X: Tensor, y: Tensor) -> Tensor:
        return X + layer(W, X, y, PRICE, warm_start=warm)

    plain = train(lambda W, X, _: X, lambda W: accuracy(W, valid, y_valid), X, y, steps)
    size = float(layer(plain[0], X, y, PRICE).norm(dim=-1).mean())
    models = {
        "plain": plain,
        "PGD": train(lambda W, X, y: pgd(W, X, y, size), score, X, y, steps),
        "one level": train(lambda W, X, y: answered(W.detach(), X, y), score, X, y, steps),
        "two levels": train(answered, score, X, y, steps),
    }
    X, y, found = images[700 : 700 + tests], labels[700 : 700 + tests], {}
    for (name, stopped), place in product(models.items(), (0, 1)):
        W, name = stopped[place], name + ENDS[place]
        altered = [X + layer(W, X, y, 1 / strength) if strength else X for strength in STRENGTHS]
        moved = [pgd(W, X, y, radius) for radius in RADII]
        found[name] = {"forgers": [accuracy(W, Z, y) for Z in altered], "PGD": [accuracy(W, Z, y) for Z in moved]}
        found[name]["forgers' change"] = [float((Z - X).norm(dim=-1).mean()) for Z in altered]
    print(f"seed {seed}: forgers change a plain classifier's images by {size:.2f}; accuracy against them:")
    for name, rows in found.items():
        print(f"  {name:21s}", *(f"{value:.3f}" for value in rows["forgers"]), flush=True)
    return found


def gain(
    found: list[dict[str, dict[str, list[float]]]], names: tuple[str, str], at: tuple[str, int]
) -> dict[str, float]:
    """How much more accurate the first is: mean over the seeds, and its 95 % interval by Student's t."""
    first, second = ([models[name][at[0]][at[1]] for models in found] for name in names)
    rows = [one - two for one, two in zip(first, second, strict=True)]
    more = torch.tensor(rows, dtype=torch.float64)
    half = float(stats.t.ppf(0.975, len(rows) - 1) * more.std() / len(rows) ** 0.5)
    return {"mean": float(more.mean()), "low": float(more.mean()) - half, "high": float(more.mean()) + half}


def draw(path: Path, found: list[dict[str, dict[str, list[float]]]]) -> None:
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for panel, kind, along, label in (
        (panels[0], "forgers", STRENGTHS, f"strength of the forgers, 1 / price; in training {1 / PRICE}"),
        (panels[1], "PGD", RADII, "radius of PGD's ball"),
    ):
        for place, name in enumerate(found[0]):
            rows = torch.tensor([models[name][kind] for models in found])
            panel.plot(along, rows.mean(0), "-:"[place % 2], color=f"C{place // 2}", label=name)
            panel.fill_between(along, rows.amin(0), rows.amax(0), color=f"C{place // 2}", alpha=0.15)
        panel.set(xlabel=label, ylabel="accuracy on test images" if kind == "forgers" else "")
    panels[1].legend(fontsize=7)
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two seeds, fewer images and steps")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/robust_classifier.json"), help="the picture goes beside it"
    )
    parser.add_argument("--device", default="cpu")
    settings = parser.parse_args()
    seeds, images, tests, steps = (2, 60, 100, 6) if settings.quick else (5, 300, 1000, 100)
    found = [run(seed, images, tests, steps, settings.device) for seed in range(seeds)]
    trained = STRENGTHS.index(1 / PRICE)
    kinds = {
        "untouched images": ("forgers", 0),
        "forgers at half the strength of training": ("forgers", trained - 1),
        "forgers as in training": ("forgers", trained),
        "PGD of radius 0.5": ("PGD", RADII.index(0.5)),
    }
    gains = {}
    print("how much more accurate two levels are than")
    for other, end, (test, at) in product(("plain", "PGD", "one level"), ENDS, kinds.items()):
        gains[f"{other}{end}; {test}"] = row = gain(found, (f"two levels{end}", f"{other}{end}"), at)
        print(f"  {other}{end}; {test}:", "{mean:+.3f} [{low:+.3f}, {high:+.3f}]".format(**row))
    record = {
        "setting": {"price": PRICE, "ridge": RIDGE, "strengths": STRENGTHS, "radii": RADII},
        "size": {"seeds": list(range(seeds)), "training images": images, "test images": tests, "steps": steps},
        "gains of two levels over": gains,
        "accuracy of each seed": found,
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("bigrad", "torch", "scikit-learn")},
        "hardware": {"machine": platform.machine(), "cores": os.cpu_count(), "device": settings.device},
        "command": " ".join(["python", *sys.argv]),
    }
    settings.out.parent.mkdir(parents=True, exist_ok=True)
    settings.out.write_text(json.dumps(record, indent=1) + "\n")
    draw(settings.out.with_suffix(".png"), found)
    print(f"picture in {settings.out.with_suffix('.png')}")


if __name__ == "__main__":
    main()
