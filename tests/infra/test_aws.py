"""infra/aws: the cluster file is what Ray's launcher takes, and EC2 (moto's) starts from it what it says."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import jsonschema
import pytest
import ray
import yaml
from moto import mock_aws
from ray.autoscaler._private.commands import _bootstrap_config
from ray.autoscaler._private.providers import _get_node_provider
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "infra/aws/cluster.yaml"
PROFILES = ("tokenloom-head", "tokenloom-worker")


@pytest.fixture
def config() -> dict[str, Any]:
    return yaml.safe_load(FILE.read_text())


@pytest.fixture
def ec2(config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """EC2 with the file's image and the instance profiles that it takes for granted."""
    region = config["provider"]["region"]
    for name, value in {
        "HOME": str(tmp_path),  # the launcher keeps its key there
        "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_DEFAULT_REGION": region,
        "MOTO_EC2_LOAD_DEFAULT_AMIS": "false",  # hundreds of them, for seconds
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    (tmp_path / ".ssh").mkdir()
    with mock_aws():
        client = boto3.client("ec2", region)
        iam = boto3.client("iam", region)
        for profile in PROFILES:
            iam.create_instance_profile(InstanceProfileName=profile)
        image = client.register_image(Name="of-the-test", Architecture="x86_64")["ImageId"]
        for kind in config["available_node_types"].values():
            kind["node_config"]["ImageId"] = image
        yield client


def test_rays_own_schema_and_checks_take_it(config: dict[str, Any]):
    schema = json.loads((Path(ray.__file__).parent / "autoscaler/ray-schema.json").read_text())
    jsonschema.validate(config, schema)
    validate_config(prepare_config(copy.deepcopy(config)))
    with pytest.raises(jsonschema.ValidationError, match="max_worker'"):
        jsonschema.validate({**config, "max_worker": 1}, schema)
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version
    assert config["docker"]["image"].endswith(f":{version[1]}-cuda")


@pytest.mark.slow
def test_ec2_starts_what_it_says_and_knows_its_words(config: dict[str, Any], ec2: Any):
    ready = _bootstrap_config(copy.deepcopy(config), no_config_cache=True)
    kinds = ready["available_node_types"]
    assert kinds["head"]["resources"]["CPU"] == 0
    assert {name: kinds["labelers"]["resources"][name] for name in ("CPU", "GPU")} == {"CPU": 8, "GPU": 1}
    assert kinds["readers"]["resources"]["CPU"] == 8
    provider = _get_node_provider(ready["provider"], ready["cluster_name"], use_cache=False)
    for kind in kinds:
        provider.create_node(kinds[kind]["node_config"], {"ray-user-node-type": kind}, 1)
    machines = [one for started in ec2.describe_instances()["Reservations"] for one in started["Instances"]]
    found = {
        next(tag["Value"] for tag in one["Tags"] if tag["Key"] == "ray-user-node-type"): (
            one["InstanceType"],
            one.get("InstanceLifecycle"),
            one["IamInstanceProfile"]["Arn"].rpartition("/")[2],
        )
        for one in machines
    }
    assert found == {
        "head": ("m6i.xlarge", None, "tokenloom-head"),
        "readers": ("m6i.2xlarge", None, "tokenloom-worker"),
        "labelers": ("g5.2xlarge", "spot", "tokenloom-worker"),
    }

    labelers = {**kinds["labelers"]["node_config"], "InstanceMarketOption": {"MarketType": "spot"}}
    with pytest.raises(Exception, match="InstanceMarketOption"):
        provider.create_node(labelers, {}, 1)
