"""Combinations of values that between them reach every branch of the chart's templates."""

from __future__ import annotations

from typing import Any

DIGEST = "sha256:" + "ab" * 32

CASES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "nothing optional": {
        "serviceAccount": {"create": False},
        "modelCache": {"enabled": False},
        "tests": {"storage": False},
    },
    "workload identity": {
        "serviceAccount": {
            "name": "runner",
            "annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/tamis"},
        },
        "pod": {"labels": {"azure.workload.identity/use": "true"}, "annotations": {"example.com/note": "yes"}},
    },
    "an S3 server with its own certificate and keys": {
        "storage": {
            "root": "s3://bucket/some/prefix",
            "s3": {
                "endpoint": "https://s3.internal:9000",
                "region": "eu-central-1",
                "addressingStyle": "path",
                "existingSecret": "s3-keys",
                "accessKeyIdKey": "id",
                "secretAccessKeyKey": "secret",
                "ca": {"secret": "s3-ca", "key": "bundle.pem"},
            },
        },
    },
    "Azure's storage with a key": {
        "storage": {
            "root": "az://container/runs",
            "azure": {
                "account": "ourdata",
                "endpoint": "https://ourdata.blob.internal",
                "existingSecret": "azure-keys",
            },
        },
    },
    "Google's storage with a key": {"storage": {"root": "gs://bucket/runs", "gcs": {"existingSecret": "google-key"}}},
    "a hub of one's own": {
        "hub": {"endpoint": "https://hub.internal", "existingSecret": "hub", "ca": {"configMap": "hub-ca"}},
        "storage": {"s3": {"ca": {"configMap": "s3-ca"}}},
    },
    "images by digest from a mirror": {
        "imageRegistry": "registry.internal:5000/mirror",
        "image": {"digests": {"cpu": DIGEST, "rating": DIGEST}, "pullSecrets": ["one", "two"], "pullPolicy": "Always"},
        "seaweedfs": {"enabled": True},
        "vllm": {"services": {"a": {"model": "x/y"}}},
    },
    "a filled model cache": {
        "modelCache": {
            "existingClaim": "",
            "storageClassName": "fast",
            "keep": True,
            "prefetch": {
                "models": [
                    {"kind": "hub", "repo": "BAAI/bge-large-en-v1.5", "revision": "main", "files": ["*.safetensors"]},
                    {"kind": "hub", "repo": "openai/gsm8k", "type": "dataset"},
                    {"kind": "storage", "uri": "s3://models/m", "folder": "/cache/hf/models/m"},
                ]
            },
        },
        "pod": {
            "nodeSelector": {"pool": "cpu"},
            "tolerations": [{"key": "dedicated", "operator": "Equal", "value": "tamis", "effect": "NoSchedule"}],
            "affinity": {"nodeAffinity": {}},
            "priorityClassName": "low",
            "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
        },
    },
    "a claim that is there": {"modelCache": {"existingClaim": "models"}, "fullnameOverride": "sieve"},
    "vllm services": {
        "vllm": {
            "services": {
                "small": {"model": "meta-llama/Llama-3.1-8B-Instruct"},
                "large": {
                    "model": "meta-llama/Llama-3.1-70B-Instruct",
                    "revision": "abc",
                    "servedModelName": "judge",
                    "gpus": 4,
                    "gpuResource": "amd.com/gpu",
                    "maxModelLen": 8192,
                    "extraArgs": ["--gpu-memory-utilization=0.95"],
                    "extraEnv": [{"name": "NCCL_DEBUG", "value": "WARN"}],
                    "shmSize": "32Gi",
                    "startupSeconds": 3600,
                    "apiKeySecret": "vllm-key",
                    "resources": {"requests": {"cpu": "16", "memory": "128Gi"}, "limits": {"memory": "256Gi"}},
                    "nodeSelector": {"gpu": "h100"},
                    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
                    "priorityClassName": "high",
                    "runtimeClassName": "nvidia",
                    "autoscaling": {"minReplicas": 1, "maxReplicas": 3, "waitingRequests": 4},
                },
                "off": {"model": "x/y", "replicas": 0},
            }
        },
        "hub": {"existingSecret": "hub"},
        "monitoring": {"podMonitor": True, "dashboard": True, "podMonitorLabels": {"release": "prometheus"}},
        "networkPolicy": {"enabled": True, "allowedNamespaces": ["kubeflow"]},
    },
    "kueue": {
        "kueue": {
            "enabled": True,
            "cohort": "research",
            "flavors": [
                {"name": "h100", "nodeLabels": {"gpu": "h100"}, "quotas": {"cpu": "8", "nvidia.com/gpu": 4}},
                {
                    "name": "spot",
                    "tolerations": [{"key": "spot", "operator": "Exists", "effect": "NoSchedule"}],
                    "quotas": {"cpu": "8", "memory": "64Gi"},
                },
            ],
        }
    },
    "a queue on others' quota": {"kueue": {"enabled": True, "createClusterQueue": False, "clusterQueue": "shared"}},
    "names that YAML takes for something else": {
        "fullnameOverride": "on",
        "serviceAccount": {"name": "123"},
        "storage": {"s3": {"existingSecret": "null", "accessKeyIdKey": "yes", "ca": {"configMap": "1e3"}}},
        "hub": {"existingSecret": "true", "tokenKey": "0x1"},
        "pod": {"priorityClassName": "no", "labels": {"a": "1"}},
        "image": {"pullSecrets": ["5"]},
        "modelCache": {"storageClassName": "1.5", "size": 5, "prefetch": {"models": [{"kind": "hub", "repo": "12"}]}},
        "vllm": {
            "services": {"off": {"model": "123", "revision": "7e5", "servedModelName": "yes", "apiKeySecret": "8"}}
        },
        "kueue": {"enabled": True, "localQueue": "1", "clusterQueue": "2", "cohort": "3"},
    },
    "kubeflow": {"kubeflow": {"enabled": True, "serviceAccount": {"annotations": {"a": "b"}}}},
    "kubeflow and private certificates": {
        "kubeflow": {"enabled": True},
        "storage": {"s3": {"ca": {"configMap": "s3-ca"}}},
        "hub": {"ca": {"configMap": "hub-ca"}},
    },
    "pipelines that are uploaded and run at fixed times": {
        "kubeflow": {
            "enabled": True,
            "server": {
                "host": "http://ml-pipeline.kubeflow:8888",
                "namespace": "team",
                "tokenAudience": "pipelines.kubeflow.org",
            },
            "upload": True,
            "schedules": [
                {"name": "nightly", "cron": "0 0 3 * * *", "settings": {"work_dir": "unused"}},
                {"name": "weekly", "every": 604800, "settings": {"work_dir": "unused"}},
            ],
        },
    },
    "a trainer": {
        "trainer": {"enabled": True, "nodeSelector": {"pool": "h100"}, "work": {"storageClassName": "nfs"}},
        "kubeflow": {"enabled": True},
        "pod": {"labels": {"a": "b"}, "annotations": {"c": "d"}},
        "storage": {"s3": {"existingSecret": "s3", "ca": {"configMap": "ca"}}},
    },
    "a trainer with a claim of its own": {"trainer": {"enabled": True, "work": {"existingClaim": "shared"}}},
    "a trial server": {"seaweedfs": {"enabled": True, "storageClassName": "local"}},
    "a trial server without a volume": {
        "seaweedfs": {"enabled": True, "persistence": False, "existingSecret": "keys"},
        "networkPolicy": {
            "enabled": True,
            "egress": [{"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"], "ports": [443]}],
        },
    },
}
