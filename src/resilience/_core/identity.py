"""What is shared on purpose has an identity: there is one of it, in one process."""

from __future__ import annotations

from functools import partial
from typing import Any

from attrs import fields

__all__ = ["Identity", "Restarting"]


class Identity:
    """A copy of it is the thing itself, as of a function. What has no way of its own to be pickled
    cannot be, and says why."""

    __slots__ = ()

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: Any) -> Any:
        return self

    def __reduce__(self) -> Any:
        raise TypeError(
            f"cannot pickle {self!r}: what it knows belongs to this process; make one where it is "
            f"needed, or send a function that it guards"
        )


class Restarting(Identity):
    """An attrs class that pickles as its options: its state begins anew in the other process."""

    __slots__ = ()

    def __reduce__(self) -> Any:
        cls: Any = type(self)
        options = {each.name: getattr(self, each.name) for each in fields(cls) if each.init}
        return partial(cls, **options), ()
