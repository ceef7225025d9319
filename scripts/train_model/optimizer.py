"""Muon for the matrices of the layers, Adam for embeddings and norms."""
import torch


def orthogonalised(matrices, rounds=4):
    """The nearest matrices with orthonormal rows, roughly, by Newton-Schulz on a stack of equal shapes (rows ≤ columns)."""
    x = matrices / (matrices.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    for _ in range(rounds):
        gram = torch.bmm(x, x.transpose(1, 2))
        x = 3.4445 * x + torch.bmm(torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315), x)
    return x


class Muon:
    """Keller Jordan's optimiser: the momentum of a matrix, made orthogonal, is the step."""

    def __init__(self, matrices, momentum=0.95):
        self.momentum = momentum
        self.groups = {}
        for matrix in matrices:
            self.groups.setdefault(tuple(sorted(matrix.shape)), []).append(matrix)
        self.state = {shape: torch.zeros(len(group), *shape) for shape, group in self.groups.items()}

    @torch.no_grad()
    def step(self, rate, worker=0, workers=1):
        """Each worker takes its share of the matrices."""
        for shape, everything in self.groups.items():
            share = slice(worker * len(everything) // workers, (worker + 1) * len(everything) // workers)
            group = everything[share]
            wide = [matrix.shape == shape for matrix in group]
            gradient = torch.stack([m.grad if as_is else m.grad.t() for m, as_is in zip(group, wide)])
            state = self.state[shape][share].lerp_(gradient, 1 - self.momentum)
            steps = orthogonalised(gradient.lerp(state, self.momentum))
            scale = 0.2 * max(shape) ** 0.5  # the size of an Adam step
            for matrix, step, as_is in zip(group, steps, wide):
                matrix.add_(step if as_is else step.t(), alpha=-rate * scale)
