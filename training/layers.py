"""ULMFiT's treatment of a model's layers (arXiv 1801.06146): rates by depth, and thawing from the top."""

import torch

from feedback.errors import UserError
from training.recipe_base import Recipe

Layer = dict[str, torch.nn.Parameter]


def trained_layers(model: torch.nn.Module) -> list[Layer]:
    """The parameters that train, by the layer that they sit in: embeddings first, then the blocks, the head last.

    A norm behind the last block belongs to the head, or to that block where the head has no weights of its own.

    Raises:
        UserError: the model has no list of blocks.
    """
    lists = {path: m for path, m in model.named_modules() if isinstance(m, torch.nn.ModuleList) and len(m)}
    if not lists:
        raise UserError("layers: this architecture keeps its layers in no list, so their order is unknown")
    # Experts and the like are lists too, each within one block.
    path = max(lists, key=lambda path: sum(p.numel() for p in lists[path].parameters()))
    embeddings = {
        id(p) for module in model.modules() if isinstance(module, torch.nn.Embedding) for p in module.parameters()
    }
    layers: list[Layer] = [{} for _ in range(len(lists[path]) + 2)]
    for name, parameter in model.named_parameters():
        inside = name.startswith(f"{path}.")
        if inside:
            place = int(name.removeprefix(f"{path}.").split(".")[0]) + 1
        else:
            lowest = id(parameter) in embeddings or ".embeddings." in f".{name}"
            place = 0 if lowest else -1
        layers[place][name] = parameter
    if all(parameter.dim() < 2 for parameter in layers[-1].values()):
        head = layers.pop()
        layers[-1] |= head
    trained = [{name: p for name, p in layer.items() if p.requires_grad} for layer in layers]
    return [layer for layer in trained if layer]


def check_layers(recipe: Recipe, model: torch.nn.Module) -> str | None:
    """What the recipe's treatment of layers comes to, in words; None where it treats all alike.

    Raises:
        UserError: all that trains sits in one layer.
    """
    keys = {"discriminative": recipe.discriminative != 1, "gradual_unfreezing": recipe.gradual_unfreezing}
    if not any(keys.values()):
        return None
    layers = len(trained_layers(model))
    if layers == 1:
        raise UserError(
            *(f"{key}: all that trains sits in one layer; leave it out" for key, is_on in keys.items() if is_on)
        )
    words = f"{layers} layers train"
    if recipe.discriminative != 1:
        lowest = recipe.learning_rate / recipe.discriminative ** (layers - 1)
        words += f", at peak rates from {recipe.learning_rate:.2g} (top) to {lowest:.2g} (bottom)"
    if recipe.gradual_unfreezing:
        words += ", one more from the top in each epoch"
    return words


def discriminate(optimizer: torch.optim.Optimizer, layers: list[Layer], rate: float, factor: float) -> None:
    """Give each layer its rate: that of the layer above divided by the factor (section 3.2).

    The groups of the topmost layer come first, so that its rate is the one that is logged.

    Args:
        rate: the topmost layer's.
    """
    depth = {id(p): depth for depth, layer in enumerate(reversed(layers)) for p in layer.values()}
    groups = []
    for group in optimizer.param_groups:
        for d in range(len(layers)):
            of_layer = [p for p in group["params"] if depth[id(p)] == d]
            if of_layer:
                groups.append((d, {**group, "params": of_layer, "lr": rate / factor**d}))
    optimizer.param_groups = [group for _, group in sorted(groups, key=lambda pair: pair[0])]


def hold_back(layers: list[Layer], epoch: float) -> None:
    """Drop the gradients of layers whose turn has not come: one trains at first, in each epoch one more from the top.

    By gradients and not by `requires_grad` (section 3.3): PEFT sets that anew whenever DPO's reference switches the
    adapter off and on.

    Args:
        epoch: how many are behind; within one, a fraction.
    """
    for layer in layers[: max(0, len(layers) - 1 - int(epoch))]:
        for parameter in layer.values():
            parameter.grad = None
