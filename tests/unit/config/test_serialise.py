"""A config survives the run folder's config.yaml, type for type."""

import pytest

from pretrain.config.compose import compose
from pretrain.config.location import group_choices
from pretrain.config.serialise import from_yaml, to_yaml
from pretrain.errors import UserError


@pytest.mark.parametrize("name", group_choices()["experiment"])
def test_there_and_back(name: str):
    config = compose([f"+experiment={name}", "zero.extra.overlap_comm=true", "optimizer.lr=1e-5", "run.seed=9223372036854775807"])
    again = from_yaml(to_yaml(config))
    assert again == config
    assert type(again.optimizer) is type(config.optimizer)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace("name: came", "name: camel"),
        lambda text: text.replace("num_steps:", "number_of_steps:"),
        lambda text: text.replace("num_steps: 400", "num_steps: many"),
        lambda text: "run: [",
        lambda text: "nothing",
        lambda text: "",
    ],
)
def test_a_file_of_another_version_is_refused_in_one_line(damage):
    with pytest.raises(UserError, match="config.yaml is not one that this version can read.*start a new run.name") as error:
        from_yaml(damage(to_yaml(compose(["train.num_steps=400"]))))
    assert "\n" not in str(error.value)
