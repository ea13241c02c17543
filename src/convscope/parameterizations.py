"""What an optimiser moves to make a picture: pixels, free or near a photograph, Fourier coefficients, or phases only.

A parameterization holds the numbers and makes pictures of them. Another choice of numbers for the same pictures leads
gradient ascent elsewhere: in Fourier coefficients scaled by frequency and in decorrelated colours, steps of one size
move all scales of a picture alike, which is why these pictures are smooth (Olah et al. 2017, "Preconditioning").
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from convscope.errors import OptionError

Bounds = tuple[float, float]
Norm = Literal["linf", "l2"]

#: Square root of the covariance of the colours of natural photographs, rows R, G, B (Olah et al. 2017).
_COLOURS = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))
_SMALLEST = 1 / 512  # a picture's value is kept this far from black and white where a sigmoid has to be undone


class Parameterization(Protocol):
    """Numbers that an optimiser moves, and the pictures that they make."""

    def parameters(self) -> list[Tensor]:
        """The leaves that an optimiser moves."""
        ...

    def images(self) -> Tensor:
        """(N, 3, H, W), differentiable by the parameters."""
        ...

    def project(self) -> None:
        """After each step: back to what is allowed."""
        ...


def start(
    kind: str, count: int, size: tuple[int, int], *, seed: int, mean: Tensor | None = None, spread: float = 0.04
) -> Tensor:
    """(N, 3, H, W) to begin with: ``zeros`` is black, ``mean`` the mean colour, ``noise`` Gaussian around it.

    Picture i of N is drawn from ``seed + i``, so that it does not depend on how many stand beside it.
    """
    colour = torch.full((3,), 0.5) if mean is None else mean.float().cpu().expand(3)
    plain = colour.view(1, 3, 1, 1).expand(count, 3, *size)
    if kind == "zeros":
        return torch.zeros(count, 3, *size)
    if kind == "mean":
        return plain.clone()
    return (plain + spread * drawn((3, *size), count, seed)).clamp(0, 1)


def drawn(shape: Sequence[int], count: int, seed: int) -> Tensor:
    """(N, ...) normal numbers, row i by ``seed + i``."""
    return torch.stack([torch.randn(*shape, generator=torch.Generator().manual_seed(seed + i)) for i in range(count)])


class Pixels:
    """The pixels themselves.

    Args:
        images: (N, 3, H, W) to start from.
        bounds: what pixels are held to after each step, None for free ones.
        centre: (3,) colour that counts as zero for decay and clipping: networks that subtract a mean see nothing there.
    """

    def __init__(self, images: Tensor, *, bounds: Bounds | None = (0.0, 1.0), centre: Tensor | None = None) -> None:
        wide = images.to(torch.promote_types(images.dtype, torch.float32))
        colour = torch.zeros(3) if centre is None else centre
        self._centre = colour.to(wide).view(1, -1, 1, 1)
        self._bounds = bounds
        self.pixels = (wide - self._centre).detach().clone().requires_grad_()

    def parameters(self) -> list[Tensor]:
        return [self.pixels]

    def images(self) -> Tensor:
        return self.pixels + self._centre

    def project(self) -> None:
        if self._bounds is not None:
            low, high = (bound - self._centre for bound in self._bounds)
            with torch.no_grad():
                self.pixels.clamp_(low, high)


class EpsilonBall:
    """Pixels no further than ``epsilon`` from given pictures, and within [0, 1].

    Each step is followed by the projection on the ball, and then on [0, 1]. In L-inf that is the nearest point of both.
    In L2 it is a point of both, since the cut at 0 and 1 only shortens the way from a picture that lies between them,
    but not always the nearest; Madry et al. (2018) and the libraries do the same.

    Args:
        images: (N, 3, H, W) in [0, 1], the centres.
        epsilon: of [0, 1]: the largest change of any number in ``linf``, the length of the whole change of a picture
            in ``l2``. One, or (N,).
        norm: ``linf`` or ``l2``.
        start: (N, 3, H, W) or (1, 3, H, W) to begin with, projected; the centres if left out.

    Raises :class:`OptionError` for an epsilon that is not above zero, or further than any picture can be.
    """

    def __init__(
        self, images: Tensor, epsilon: float | Tensor, *, norm: Norm = "linf", start: Tensor | None = None
    ) -> None:
        self.centre = images.detach().to(torch.promote_types(images.dtype, torch.float32))
        self._epsilon = torch.as_tensor(epsilon, dtype=torch.float64).to(self.centre).view(-1, 1, 1, 1)
        self._norm = norm
        for one in self._epsilon.flatten().tolist():
            check_epsilon(one, norm, self.centre[0].numel())
        self._low, self._high = torch.zeros(()).to(self.centre), torch.ones(()).to(self.centre)
        if norm == "linf":
            self._low = (self.centre - self._epsilon).clamp_(min=0)
            self._high = (self.centre + self._epsilon).clamp_(max=1)
        begin = self.centre if start is None else start.to(self.centre).expand_as(self.centre)
        self.pixels = begin.clone(memory_format=torch.contiguous_format)
        self.project()
        self.pixels.requires_grad_()

    def parameters(self) -> list[Tensor]:
        return [self.pixels]

    def images(self) -> Tensor:
        return self.pixels

    @torch.no_grad()
    def project(self) -> None:
        if self._norm == "l2":
            change = self.pixels - self.centre
            length = change.flatten(1).norm(dim=1).clamp(min=1e-12).view(-1, 1, 1, 1)
            self.pixels.copy_(self.centre + change * (self._epsilon / length).clamp(max=1))
        self.pixels.clamp_(self._low, self._high)


class FewPixels:
    """Given pictures of which at most ``count`` pixels differ, within [0, 1].

    Each step is followed by the projection on both (Croce & Hein 2019, arXiv:1909.05040): every pixel is
    cut at 0 and 1, and those stay changed whose change, so cut, brings the picture nearest to what the step wanted.

    Args:
        images: (N, 3, H, W) in [0, 1].
        count: of pixels.
    """

    def __init__(self, images: Tensor, count: int) -> None:
        self.centre = images.detach().to(torch.promote_types(images.dtype, torch.float32))
        self._count = count
        self.pixels = self.centre.clone(memory_format=torch.contiguous_format).requires_grad_()

    def parameters(self) -> list[Tensor]:
        return [self.pixels]

    def images(self) -> Tensor:
        return self.pixels

    @torch.no_grad()
    def project(self) -> None:
        wanted = self.pixels - self.centre
        change = self.pixels.clamp(0, 1) - self.centre
        nearer = (wanted.square() - (wanted - change).square()).sum(1).flatten(1)  # (N, H W)
        best = nearer.topk(min(self._count, nearer.shape[1]), dim=1).indices
        kept = torch.zeros_like(nearer).scatter_(1, best, 1.0).view(len(wanted), 1, *wanted.shape[2:])
        self.pixels.copy_(self.centre + kept * change)


class SharedChange:
    """One change for many pictures, no longer than ``epsilon``, of which each step sees a few, cut at 0 and 1.

    Every picture is seen once before any is seen again, in an order drawn anew each time.

    Args:
        originals: (N, 3, H, W) in [0, 1].
        epsilon, norm: as of :class:`EpsilonBall`, around no change at all.
        batch: pictures a step.
        seed: of the order.

    ``chosen`` are the indices of the pictures that the next step sees.
    """

    def __init__(
        self, originals: Tensor, epsilon: float, *, norm: Norm = "linf", batch: int = 16, seed: int = 0
    ) -> None:  # fmt: skip
        check_epsilon(epsilon, norm, originals[0].numel())
        self._originals, self._epsilon, self._norm = originals.detach(), epsilon, norm
        self._batch = min(batch, len(originals))
        self._generator = torch.Generator().manual_seed(seed)
        self._order = torch.zeros(0, dtype=torch.long)
        wide = torch.promote_types(originals.dtype, torch.float32)
        self.change = torch.zeros_like(originals[:1], dtype=wide).requires_grad_()
        self._draw()

    def parameters(self) -> list[Tensor]:
        return [self.change]

    def images(self) -> Tensor:
        return (self._originals[self.chosen].to(self.change) + self.change).clamp(0, 1)

    @torch.no_grad()
    def project(self) -> None:
        if self._norm == "linf":
            self.change.clamp_(-self._epsilon, self._epsilon)
        else:
            self.change.mul_((self._epsilon / self.change.norm().clamp(min=1e-12)).clamp(max=1))
        self._draw()

    def _draw(self) -> None:
        """The pictures of the next step."""
        if len(self._order) < self._batch:
            self._order = torch.cat([self._order, torch.randperm(len(self._originals), generator=self._generator)])
        self.chosen, self._order = self._order[: self._batch], self._order[self._batch :]


def check_epsilon(epsilon: float, norm: Norm, numbers: int) -> None:
    """:class:`OptionError` where pictures of so many ``numbers`` cannot be changed by ``epsilon`` and no more."""
    most = 1.0 if norm == "linf" else math.sqrt(numbers)
    if 0 < epsilon <= most * (1 + 1e-6):
        return
    which = "the largest change of a channel" if norm == "linf" else "the length of the whole change"
    hint = f"; for {epsilon:g} levels of an 8-bit file say {epsilon:g}/255" if norm == "linf" and epsilon > 1 else ""
    raise OptionError(
        f"epsilon {epsilon:g} should lie above 0 and at most at {most:.4g}: in {norm} it is {which}, and pictures are "
        f"in [0, 1]{hint}"
    )


def near(size: tuple[int, int], epsilon: float, *, norm: Norm, seed: int) -> Tensor:
    """(1, 3, H, W): a change drawn uniformly from the ball of ``epsilon`` in ``norm``, to begin somewhere within it.

    One for all pictures, so that none depends on which stand beside it.
    """
    generator = torch.Generator().manual_seed(seed)
    if norm == "linf":
        return epsilon * (2 * torch.rand(1, 3, *size, generator=generator) - 1)
    found = torch.randn(1, 3, *size, generator=generator)
    share = float(torch.rand((), generator=generator, dtype=torch.float64)) ** (1 / found.numel())
    return found * (epsilon * share / float(found.norm()))


class Fourier:
    """Coefficients of a real Fourier transform in decorrelated colours, behind a sigmoid (Olah et al. 2017).

        image = sigmoid(colours(irfft(coefficients / max(frequency, 1 / longer side) ^ decay)))

    with an orthonormal transform and the transform's result divided by four, as the authors' code does.

    Args:
        count, size: N pictures of (H, W).
        seed: picture i starts from ``seed + i``.
        spread: standard deviation of the coefficients to start from.
        decay: how fast the scale falls with frequency; 1 is that of photographs.
        correlate: whether colours are decorrelated; without, the three planes are R, G and B.
    """

    def __init__(
        self, count: int, size: tuple[int, int], *, seed: int = 0, spread: float = 0.01, decay: float = 1.0,
        correlate: bool = True,
    ) -> None:  # fmt: skip
        self._size, self._correlate = size, correlate
        self._scale = 1 / frequencies(size).clamp(min=1 / max(size)) ** decay / 4
        shape = (3, *self._scale.shape, 2)
        self.coefficients = (spread * drawn(shape, count, seed)).requires_grad_()

    @classmethod
    def of(cls, images: Tensor, *, decay: float = 1.0, correlate: bool = True) -> Fourier:
        """The coefficients of given pictures (N, 3, H, W); black and white are taken as almost so."""
        made = cls(len(images), (images.shape[-2], images.shape[-1]), decay=decay, correlate=correlate)
        planes = torch.logit(images.detach().float().cpu().clamp(_SMALLEST, 1 - _SMALLEST))
        planes = decorrelated(planes) if correlate else planes
        found = torch.fft.rfft2(planes, norm="ortho") / made._scale
        made.coefficients = torch.view_as_real(found).clone().requires_grad_()
        return made

    def to(self, device: torch.device) -> Fourier:
        """The same on another device."""
        self._scale = self._scale.to(device)
        self.coefficients = self.coefficients.detach().to(device).requires_grad_()
        return self

    def parameters(self) -> list[Tensor]:
        return [self.coefficients]

    def images(self) -> Tensor:
        return _Waves.apply(self.coefficients, self._scale, self._size, self._correlate)  # type: ignore[no-untyped-call]

    def project(self) -> None:
        pass


class _Waves(torch.autograd.Function):
    """Pictures of coefficients; with its own way back, which takes half the time of torch's."""

    no_rectifier = True

    @staticmethod
    def forward(ctx: Any, coefficients: Tensor, scale: Tensor, size: tuple[int, int], correlate: bool) -> Tensor:
        planes = torch.fft.irfft2(torch.view_as_complex(coefficients) * scale, s=size, norm="ortho")
        images = (correlated(planes) if correlate else planes).sigmoid_()
        ctx.save_for_backward(images, scale)
        ctx.correlate = correlate
        return images

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slopes: Tensor) -> tuple[Tensor, None, None, None]:
        images, scale = ctx.saved_tensors
        slopes = slopes * torch.addcmul(images, images, images, value=-1)
        slopes = recoloured(colour_matrix().T, slopes) if ctx.correlate else slopes
        found = torch.fft.rfft2(slopes, norm="ortho") * scale
        found[..., 1 : (slopes.shape[-1] + 1) // 2] *= 2  # each of these stands for its mirror image, too
        return torch.view_as_real(found), None, None, None


class Phase:
    """Only the phases of a Fourier transform, whose magnitudes are those of photographs: MACO (Fel et al. 2023).

        image = sigmoid(colours(standardised(irfft(magnitude * exp(i phase)))))

    The paper's section 3.2 takes the mean magnitude over ImageNet's photographs, in decorrelated colours. Here it is
    1 / frequency, which photographs have on average (Field 1987, section 3), or the mean over ``photographs``.

    Args:
        count, size: N pictures of (H, W).
        seed: picture i starts from ``seed + i``, phases uniform over the circle.
        photographs: (M, 3, h, w) whose mean magnitude is taken instead.
    """

    def __init__(
        self, count: int, size: tuple[int, int], *, seed: int = 0, photographs: Tensor | None = None
    ) -> None:  # fmt: skip
        self._size = size
        self.magnitude = natural_magnitude(size) if photographs is None else mean_magnitude(photographs, size)
        uniform = [
            torch.rand(self.magnitude.shape, generator=torch.Generator().manual_seed(seed + i)) for i in range(count)
        ]
        self.phase = (2 * math.pi * torch.stack(uniform) - math.pi).requires_grad_()

    def to(self, device: torch.device) -> Phase:
        """The same on another device."""
        self.magnitude = self.magnitude.to(device)
        self.phase = self.phase.detach().to(device).requires_grad_()
        return self

    def parameters(self) -> list[Tensor]:
        return [self.phase]

    def spectrum(self) -> Tensor:
        """(N, 3, H, W // 2 + 1) complex: the buffer before it is standardised."""
        return torch.polar(self.magnitude.expand_as(self.phase), self.phase)

    def images(self) -> Tensor:
        planes = torch.fft.irfft2(self.spectrum(), s=self._size, norm="ortho")
        mean, spread = planes.mean((1, 2, 3), keepdim=True), planes.std((1, 2, 3), keepdim=True)
        return torch.sigmoid(correlated((planes - mean) / (spread + 1e-4)))

    def project(self) -> None:
        pass


def frequencies(size: tuple[int, int]) -> Tensor:
    """(H, W // 2 + 1) length of each frequency of a real transform, in cycles a pixel."""
    rows, columns = torch.fft.fftfreq(size[0]), torch.fft.rfftfreq(size[1])
    return (rows[:, None].square() + columns.square()).sqrt()


def natural_magnitude(size: tuple[int, int]) -> Tensor:
    """(3, H, W // 2 + 1): 1 / frequency, nothing at zero, where the standardised mean is anyway."""
    found = frequencies(size)
    found = torch.where(found > 0, 1 / found.clamp(min=1e-9), 0)
    return found.expand(3, *found.shape).clone()


def mean_magnitude(photographs: Tensor, size: tuple[int, int]) -> Tensor:
    """(3, H, W // 2 + 1): mean magnitude of photographs (M, 3, h, w) in decorrelated colours, at another size."""
    planes = decorrelated(torch.logit(photographs.float().cpu().clamp(_SMALLEST, 1 - _SMALLEST)))
    planes = torch.nn.functional.interpolate(planes, size, mode="bilinear", antialias=True)
    planes = planes - planes.mean((2, 3), keepdim=True)
    if not bool(planes.any()):
        raise OptionError("photographs of one colour have no spectrum; give some that show something")
    return torch.fft.rfft2(planes, norm="ortho").abs().mean(0)


def colour_matrix() -> Tensor:
    """(3, 3): from decorrelated planes to R, G, B; its longest column has length 1."""
    matrix = torch.tensor(_COLOURS)
    return matrix / matrix.norm(dim=0).max()


def correlated(planes: Tensor) -> Tensor:
    """(N, 3, H, W) decorrelated planes as R, G, B."""
    return recoloured(colour_matrix(), planes)


def decorrelated(planes: Tensor) -> Tensor:
    """(N, 3, H, W) R, G, B as decorrelated planes: the inverse of :func:`correlated`."""
    return recoloured(torch.linalg.inv(colour_matrix()), planes)


def recoloured(matrix: Tensor, planes: Tensor) -> Tensor:
    """(N, 3, H, W) with a (3, 3) matrix applied to each pixel's three numbers."""
    return (matrix.to(planes) @ planes.flatten(2)).view(planes.shape)
