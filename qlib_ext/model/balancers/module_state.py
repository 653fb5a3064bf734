"""What a torch module has come to hold since it was made, as tensors and values for JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from qlib_ext.checks import UserError

OF_EVERY_MODULE = set(vars(nn.Module()))


def capture(module: nn.Module, fresh: nn.Module) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Copy what `module` and its submodules hold and `fresh`, made in the same way and never used, does not.

    A `state_dict` does not do for TorchJD: it has parameters and buffers only, and a buffer that is None until the
    first step cannot be loaded into a new module. Here every attribute counts: numbers, texts, tensors, arrays, torch
    types and devices, optimizers of the module's parameters (Adam), and tuples and lists of these.

    Raises
    ------
    UserError
        If an attribute has come to hold anything else.
    """
    tensors: dict[str, Tensor] = {}
    values: dict[str, Any] = {}
    before = dict(_attributes(fresh))
    for name, value in _attributes(module):
        if not _is_solver(value) and not _same(value, before.get(name)):
            values[name] = encode(value, name, tensors)
    return tensors, values


def restore(module: nn.Module, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    """Put what `capture` gave into a module that is made in the same way and not used yet."""
    owners = dict(module.named_modules())
    for name, code in values.items():
        path, _, attribute = name.rpartition(".")
        owner = owners[path]
        value = decode(code, tensors, owner)
        if attribute in owner._parameters:
            getattr(owner, attribute).data.copy_(value)
        else:
            setattr(owner, attribute, value)
    for owner in owners.values():
        make_solver = getattr(
            owner, "_init_optim_problem", None
        )  # Nash-MTL's first step makes what a later one needs
        if make_solver is not None and owner.step:
            make_solver()


def encode(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Describe a value for JSON, with its tensors under `name` in `tensors`."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Tensor):
        tensors[name] = value.detach().clone()
        return {"tensor": name, "on_cpu": value.device.type == "cpu"}
    if isinstance(value, np.ndarray):
        tensors[name] = torch.from_numpy(value.copy())
        return {"array": name}
    if isinstance(value, (torch.dtype, torch.device)):
        return {type(value).__name__: str(value).removeprefix("torch.")}
    if isinstance(value, (tuple, list)):
        items = [encode(item, f"{name}.{i}", tensors) for i, item in enumerate(value)]
        return {type(value).__name__: items}
    if isinstance(value, torch.optim.Adam):
        group = value.param_groups[0]
        state = [
            [index, key, encode(item, f"{name}.{index}.{key}", tensors)]
            for index, kept in value.state_dict()["state"].items()
            for key, item in kept.items()
        ]
        return {"adam": state, "lr": group["lr"], "weight_decay": group["weight_decay"]}
    raise UserError(f"a resumed run could not take up `{name}`, which holds a {type(value).__name__}")


def decode(code: Any, tensors: Mapping[str, Tensor], owner: nn.Module) -> Any:
    """Make the value again that `encode` described; an optimizer is one of `owner`'s own parameters."""
    if not isinstance(code, Mapping):
        return code
    if "tensor" in code:
        tensor = tensors[code["tensor"]].clone()
        return tensor.cpu() if code["on_cpu"] else tensor
    if "array" in code:
        return tensors[code["array"]].cpu().numpy().copy()
    if "dtype" in code:
        return getattr(torch, code["dtype"])
    if "device" in code:
        return torch.device(code["device"])
    if "adam" in code:
        adam = torch.optim.Adam(owner.parameters(), lr=code["lr"], weight_decay=code["weight_decay"])
        state: dict[int, dict[str, Any]] = {}
        for index, key, item in code["adam"]:
            state.setdefault(index, {})[key] = decode(item, tensors, owner)
        adam.load_state_dict({"state": state, "param_groups": adam.state_dict()["param_groups"]})
        return adam
    items = [decode(item, tensors, owner) for items in code.values() for item in items]
    return tuple(items) if "tuple" in code else items


def _attributes(module: nn.Module) -> Iterator[tuple[str, Any]]:
    for path, owner in module.named_modules():
        kept = {**vars(owner), **owner._parameters, **owner._buffers}
        for name in sorted(kept.keys() - OF_EVERY_MODULE):
            yield f"{path}.{name}", kept[name]


def _is_solver(value: Any) -> bool:
    """Parts of a cvxpy problem: made again from the rest."""
    return type(value).__module__.partition(".")[0] == "cvxpy"


def _same(value: Any, before: Any) -> bool:
    """Whether a value is what a new module has; of what is not state, such as a function, the type decides."""
    if type(value) is not type(before):
        return False
    if isinstance(value, (Tensor, np.ndarray)):
        return value.shape == before.shape and bool((value == before).all())
    if isinstance(value, (tuple, list)):
        return len(value) == len(before) and all(map(_same, value, before))
    plain = (bool, int, float, str, torch.dtype, torch.device)
    return value == before if isinstance(value, plain) else True
