"""What Kubeflow Pipelines 2.17 and Argo Workflows 4.0 add by themselves, measured from recorded workflows.

`scripts/workflow_figures.py` measures the numbers again.
"""

from __future__ import annotations

# Argo refuses a larger workflow, spec and status together, and Kubeflow as installed keeps no status elsewhere.
MOST_BYTES = 1 << 20
# Linux refuses a longer argument of a command. Kubeflow hands a step's input to its pod as one.
MOST_ARGUMENT = 128 << 10
# Base64 of what Argo packs with Go's gzip, relative to Base64 of what Python packs from the same nodes.
PACKED = 1.15
# Bytes of the parts of a spec that depend on no pipeline, of a template, and of a task in a template, each beside the
# texts that come from the package.
SPEC, TEMPLATE, STEP, NESTED, LOOP = 14_000, 300, 1_600, 900, 2_100
PARAMETER = 60  # of a parameter of the spec, beside its name and value
LAUNCHER = (
    "/kfp-launcher/launch",
    "--pipeline_name",
    "experiment",
    "--run_id",
    "f393c84c-f6e2-4286-a8ce-2e8873718477",
    "--execution_id",
    "247",
    "--pod_name",
    "$(KFP_POD_NAME)",
    "--pod_uid",
    "$(KFP_POD_UID)",
    "--ml_pipeline_server_address",
    "ml-pipeline.kubeflow.svc.cluster.local",
    "--ml_pipeline_server_port",
    "8887",
    "--mlmd_server_address",
    "metadata-grpc-service.kubeflow.svc.cluster.local",
    "--mlmd_server_port",
    "8080",
    "--publish_logs",
    "true",
    "--log_level",
    "4",
    "--",
)
# Of an artifact: how Kubeflow reaches its storage.
STORE = (
    '{"Provider":"s3","Params":{"accessKeyKey":"accesskey","disableSSL":"true","endpoint":"127.0.0.1:9000",'
    '"forcePathStyle":"true","fromEnv":"false","maxRetries":"5","region":"us-east-1","secretKeyKey":"secretkey",'
    '"secretName":"mlpipeline-minio-artifact"}}'
)
# Of a node: what tells nothing of the step.
NODE = {
    "phase": "Succeeded",
    "startedAt": "2026-11-30T00:20:20Z",
    "finishedAt": "2026-11-30T00:20:30Z",
    "progress": "1/1",
    "resourcesDuration": {"cpu": 6, "memory": 1260},
    "nodeFlag": {"retried": True},
    "hostNodeName": "gpu-node-0",
    "taskResultSynced": True,
}
