#!/usr/bin/env python3
"""Writes the JSON schemas of the kinds that the chart uses, for three versions of
Kubernetes, from the strict schemas in the package kubernetes-validate (Apache 2.0).

    pip download --no-deps kubernetes-validate==1.37.0 -d schemas
    test/chart/testdata/kubernetes/prune.py schemas/*.whl
"""
import json
import pathlib
import re
import sys
import zipfile

VERSIONS = ["v1.35.0", "v1.36.0", "v1.37.0"]
KINDS = {
    "io.k8s.api.apps.v1": ["Deployment", "StatefulSet"],
    "io.k8s.api.batch.v1": ["Job"],
    "io.k8s.api.core.v1": ["ConfigMap", "Secret", "Service", "ServiceAccount"],
    "io.k8s.api.networking.v1": ["Ingress", "NetworkPolicy"],
    "io.k8s.api.policy.v1": ["PodDisruptionBudget"],
    "io.k8s.api.autoscaling.v2": ["HorizontalPodAutoscaler"],
}


def bare(schema):
    """Without what is for readers, and with references inside the file."""
    if isinstance(schema, list):
        return [bare(x) for x in schema]
    if not isinstance(schema, dict):
        return schema
    out = {}
    for key, value in schema.items():
        if key == "description" and isinstance(value, str) or key.startswith("x-"):
            continue
        out[key] = "#/definitions/" + value.rsplit("/", 1)[1] if key == "$ref" else bare(value)
    return out


def main():
    here = pathlib.Path(__file__).parent
    with zipfile.ZipFile(sys.argv[1]) as wheel:
        for version in VERSIONS:
            name = f"kubernetes_validate/kubernetes-json-schema/{version}-local-strict/_definitions.json"
            every = json.loads(wheel.read(name))["$defs"]
            todo = [f"{group}.{kind}" for group, kinds in KINDS.items() for kind in kinds]
            kept = {}
            while todo:
                one = todo.pop()
                if one not in kept:
                    kept[one] = bare(every[one])
                    todo += re.findall(r'"#/definitions/([^"]+)"', json.dumps(kept[one]))
            text = json.dumps({"definitions": kept}, sort_keys=True, separators=(",", ":"))
            (here / f"{version}.json").write_text(text + "\n")


main()
