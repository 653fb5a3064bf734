"""What a torch module has come to hold since it was made, as tensors and values for JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer


def capture(module: nn.Module) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Copy the numbers, texts, tensors, arrays, lists of these and states of optimizers that a module and its parts hold.

    A `state_dict` does not do for TorchJD: it has parameters and buffers only, and a buffer that is None until the
    first step cannot be loaded into a new module. Anything else is left out: a module that is made in the same way and
    has taken a step on data of the same sizes has it too.
    """
    tensors: dict[str, Tensor] = {}
    values: dict[str, Any] = {}
    for path, owner in module.named_modules():
        held = {
            **vars(owner),
            **dict(owner.named_parameters(recurse=False)),
            **dict(owner.named_buffers(recurse=False)),
        }
        for attribute, value in held.items():
            if _is_kept(value):
                values[f"{path}.{attribute}"] = _encode(value, f"{path}.{attribute}", tensors)
    return tensors, values


def restore(module: nn.Module, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    """Put what `capture` gave into a module that is made in the same way and has taken a step."""
    owners = dict(module.named_modules())
    for name, code in values.items():
        path, _, attribute = name.rpartition(".")
        value, now = _decode(code, tensors), getattr(owners[path], attribute, None)
        if isinstance(now, Optimizer):
            state = {int(index): kept for index, kept in value.items()}
            now.load_state_dict({"state": state, "param_groups": now.state_dict()["param_groups"]})
        elif isinstance(now, nn.Parameter):
            now.data.copy_(value)
        else:
            setattr(owners[path], attribute, value)


def _is_kept(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_kept, value))
    return value is None or isinstance(value, (bool, int, float, str, Tensor, np.ndarray, Optimizer))


def _encode(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Describe a value for JSON, with its tensors under `name` in `tensors`."""
    if isinstance(value, Tensor):
        tensors[name] = value.detach().clone()
        return {"tensor": name, "on_cpu": value.device.type == "cpu"}
    if isinstance(value, np.ndarray):
        tensors[name] = torch.from_numpy(value.copy())
        return {"array": name}
    if isinstance(value, list):
        return [_encode(item, f"{name}.{i}", tensors) for i, item in enumerate(value)]
    if isinstance(value, Optimizer):
        value = value.state_dict()["state"]
    if isinstance(value, dict):
        return {"mapping": {str(key): _encode(item, f"{name}.{key}", tensors) for key, item in value.items()}}
    return value


def _decode(code: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Make the value again that `_encode` described."""
    if isinstance(code, list):
        return [_decode(item, tensors) for item in code]
    if not isinstance(code, Mapping):
        return code
    if "mapping" in code:
        return {key: _decode(item, tensors) for key, item in code["mapping"].items()}
    if "array" in code:
        return tensors[code["array"]].cpu().numpy().copy()
    tensor = tensors[code["tensor"]].clone()
    return tensor.cpu() if code["on_cpu"] else tensor
