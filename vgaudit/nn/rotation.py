"""Auto-rotation of a layer: z = ρ·f with ρ = L / D, as a change of its weights.

The layer computes with w′ = ρ·w and b′ = ρ·b and is otherwise what it was: one
pass, the same operator, the same keys in its state_dict and three more. The
gradient flows through ρ.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from vgaudit.errors import BadConfig
from vgaudit.nn.denominator import Denominator, Kind, ratio
from vgaudit.nn.inputs import Inputs, Number
from vgaudit.nn.limit import Limit, LimitType, Storage, effective, raw

ENTRIES = ("ar_limit", "ar_center", "ar_spread")
"""What auto-rotation adds to a layer's state_dict."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """How a layer is rotated: all that its tensors do not say.

    Attributes:
        denominator: which D.
        inputs: whether center and spread are those of a range or moments.
        limit_type: which L.
        storage: how L is stored.
    """

    denominator: Denominator
    inputs: Literal["range", "moments"]
    limit_type: LimitType
    storage: Storage

    @property
    def k(self) -> float:
        """The factor of the denominator ``moments``."""
        return self.denominator.factor(self.inputs)


class AutoRotation(nn.Module):
    """What all auto-rotated layers share; stands before the plain class.

    Args:
        *args: as of the plain layer.
        limit: L; a number, one per unit, or ``Limit`` for type and storage. By
            default 4, which suits sigmoid; recurrent layers: 4 for sigmoid gates
            and 2 for tanh.
        denominator: how D is computed; a word, a number q for x_Q = q, or
            ``Denominator``.
        inputs: what reaches the layer: (low, high), or ``Inputs``.
        **kwargs: as of the plain layer.

    Attributes:
        plain_class: the class of the layer without rotation.
        rotation: how it is rotated.
        ar_limit: L as stored, a parameter or a buffer.
        ar_center: middle or mean of the inputs.
        ar_spread: half range or standard deviation of the inputs.

    Raises:
        BadConfig: limit, denominator and inputs do not fit each other or the layer.
    """

    plain_class: ClassVar[type[nn.Module]]
    rotation: Rotation
    ar_limit: Tensor
    ar_center: Tensor
    ar_spread: Tensor

    def __init__(
        self,
        *args: Any,
        limit: Limit | float | Tensor | None = None,
        denominator: Denominator | Kind | float = "moments",
        inputs: Inputs | tuple[Number, Number] = (-1.0, 1.0),
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.begin(limit=limit, denominator=denominator, inputs=inputs)

    def begin(
        self,
        *,
        limit: Limit | float | Tensor | None,
        denominator: Denominator | Kind | float,
        inputs: Inputs | tuple[Number, Number],
    ) -> None:
        """Gives a plain layer of this class what rotation needs; see the class."""
        how, reaching = Denominator.of(denominator), Inputs.of(inputs)
        how.check(reaching)
        reaching = self.fit_inputs(reaching, how)
        if limit is None:
            limit = self.default_limit()
        wanted = limit if isinstance(limit, Limit) else Limit(limit)
        self.rotation = Rotation(
            denominator=how,
            inputs=reaching.kind,
            limit_type=wanted.type,
            storage=wanted.stored,
        )
        like = next(self.parameters()).detach()
        like = like.to(torch.promote_types(like.dtype, torch.float32))
        self.register_buffer("ar_center", reaching.center.to(like))
        self.register_buffer("ar_spread", reaching.spread.to(like))
        stored = raw(self._first_limit(wanted).to(like), wanted.stored)
        if wanted.trained:
            self.register_parameter("ar_limit", nn.Parameter(stored))
        else:
            self.register_buffer("ar_limit", stored)

    @property
    def limit(self) -> Tensor:
        """L > 0: a scalar, or one per unit, in the shape of ``denominator()``."""
        return effective(self.ar_limit, self.rotation.storage)

    @torch.no_grad()
    def set_limit_(self, limit: Tensor) -> None:
        """Writes L, which keeps its type and storage.

        Args:
            limit: positive; a scalar, or one per unit unless L is shared.
        """
        value = limit.to(self.ar_limit)
        fits = value.dim() == 0 or value.shape == self.ar_limit.shape
        if not fits or not bool(((value > 0) & value.isfinite()).all()):
            raise BadConfig(
                f"L of shape {tuple(limit.shape)} for {self.rotation.limit_type}",
                hint=f"give positive numbers of shape {tuple(self.ar_limit.shape)}",
            )
        self.ar_limit.copy_(raw(value, self.rotation.storage))

    def denominator(self) -> Tensor:
        """Returns D per unit, in float32 at least, under autocast too."""
        with full_precision(self.ar_center.device):
            return self.compute_denominator()

    def rho(self) -> Tensor:
        """Returns ρ = L / D per unit; 1 for a unit whose weights are all 0."""
        return ratio(self.limit, self.denominator())

    def rotated(self) -> dict[str, Tensor]:
        """Returns the parameters to compute with, by name: ρ·w and ρ·b."""
        raise NotImplementedError

    def classic(self, *args: Any) -> Any:
        """Returns the output of the layer without rotation, f."""
        return self.run_plain({}, *args)

    def run_plain(self, weights: dict[str, Tensor], *args: Any, **kwargs: Any) -> Any:
        """Runs the plain class's forward with other weights, whatever it does.

        It runs on a stand-in that shares all but the weights: nothing is patched,
        so threads do not meet.
        """
        twin = self.plain_class.__new__(self.plain_class)
        twin.__dict__.update(self.__dict__)
        twin.__dict__["_parameters"] = {**self._parameters, **weights}
        return self.plain_class.forward(twin, *args, **kwargs)

    def default_limit(self) -> float | Tensor:
        """Returns L where none is given."""
        return 4.0

    def fit_inputs(self, inputs: Inputs, how: Denominator) -> Inputs:
        """Returns the inputs as this layer meets them.

        Raises:
            BadConfig: one per input, and not as many as the layer has.
            CannotRewrite: the layer has no such denominator.
        """
        raise NotImplementedError

    def border_matters(self) -> bool:
        """Tells whether ρ varies along a padded border, so that it is no factor."""
        return False

    def units(self) -> torch.Size:
        """Returns the shape of D."""
        raise NotImplementedError

    def compute_denominator(self) -> Tensor:
        """Returns D per unit; ``denominator`` sees to the precision."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        """Returns the plain layer's, and the rotation."""
        how = self.rotation
        return f"{super().extra_repr()}, D={how.denominator.kind}, L={how.limit_type}"

    def _first_limit(self, wanted: Limit) -> Tensor:
        """Returns L as wanted, in the shape in which it is stored."""
        if not wanted.preserves and wanted.shared:
            return torch.as_tensor(wanted.value).reshape(())
        if not wanted.preserves:
            value = torch.as_tensor(wanted.value)
            return value.expand(self.units()).clone()
        if self.border_matters():
            raise BadConfig(
                "border='reference' has no single D for L to preserve",
                hint="use border='interior'",
            )
        d = self.denominator().detach()
        d = d if wanted.cap is None else d.clamp_max(wanted.cap)
        return torch.where(d > 0, d, 1.0)


def widen(tensor: Tensor) -> Tensor:
    """Returns ``tensor`` in float32 at least."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def full_precision(device: torch.device) -> AbstractContextManager[Any]:
    """Returns a context without autocast: D cancels, half precision ruins it."""
    if torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()
