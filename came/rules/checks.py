"""Hyper-parameters out of their range are named, with the range."""


def check(name: str, value: float, valid: bool, wanted: str) -> None:
    """Raise ValueError unless `valid`; `wanted` completes "it must be ..."."""
    if not valid:
        raise ValueError(f"{name}={value} is not valid: it must be {wanted}")


def check_common(lr: float, betas: tuple[float, ...], weight_decay: float) -> None:
    """What every optimizer has."""
    check("lr", lr, lr >= 0, "0 or more")
    check("weight_decay", weight_decay, weight_decay >= 0, "0 or more")
    for index, beta in enumerate(betas, start=1):
        check(f"beta{index}", beta, 0 <= beta < 1, "in [0, 1)")
