{{- define "tamis.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* Full name of objects, at most 40 characters, so that it fits into a label's 63 characters with a suffix. */}}
{{- define "tamis.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- $name := include "tamis.name" . }}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "tamis.selectorLabels" -}}
app.kubernetes.io/name: {{ include "tamis.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- define "tamis.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" | quote }}
{{ include "tamis.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: tamis
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
{{- end }}

{{- define "tamis.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "tamis.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "tamis.pipelineServiceAccountName" -}}
{{- default (printf "%s-pipeline" (include "tamis.fullname" .)) .Values.kubeflow.serviceAccount.name }}
{{- end }}

{{/* Full name of one of Tamis' images. Takes a list: the root context, "cpu" or another image's name. */}}
{{- define "tamis.image" -}}
{{- $root := index . 0 }}
{{- $name := index . 1 }}
{{- $image := printf "%s/tamis-%s" (default $root.Values.image.registry $root.Values.imageRegistry) $name }}
{{- $digest := get $root.Values.image.digests $name }}
{{- if $digest }}{{ $image }}@{{ $digest }}{{ else }}{{ $image }}:{{ default $root.Chart.AppVersion $root.Values.image.tag }}{{ end }}
{{- end }}

{{/* A third-party image, from imageRegistry if that is set. Takes a list: the root context, the image. */}}
{{- define "tamis.otherImage" -}}
{{- $root := index . 0 }}
{{- $image := index . 1 }}
{{- if $root.Values.imageRegistry }}{{ $root.Values.imageRegistry }}/{{ regexReplaceAll "^[^/]+/" $image "" }}{{ else }}{{ $image }}{{ end }}
{{- end }}

{{- define "tamis.modelCacheClaim" -}}
{{- default (printf "%s-models" (include "tamis.fullname" .)) .Values.modelCache.existingClaim }}
{{- end }}

{{- define "tamis.workClaim" -}}
{{- default (printf "%s-work" (include "tamis.fullname" .)) .Values.trainer.work.existingClaim }}
{{- end }}

{{- define "tamis.s3Endpoint" -}}
{{- if .Values.storage.s3.endpoint }}
{{- .Values.storage.s3.endpoint }}
{{- else if .Values.seaweedfs.enabled }}
{{- printf "http://%s-seaweedfs.%s:8333" (include "tamis.fullname" .) .Release.Namespace }}
{{- end }}
{{- end }}

{{/* Secret and keys of the S3 credentials as JSON; an empty secret means workload identity. */}}
{{- define "tamis.s3Secret" -}}
{{- if .Values.storage.s3.existingSecret }}
{{- dict "name" .Values.storage.s3.existingSecret "id" .Values.storage.s3.accessKeyIdKey "secret" .Values.storage.s3.secretAccessKeyKey | toJson }}
{{- else if .Values.seaweedfs.enabled }}
{{- dict "name" (include "tamis.seaweedfsSecret" .) "id" "accessKeyId" "secret" "secretAccessKey" | toJson }}
{{- else }}
{{- dict "name" "" | toJson }}
{{- end }}
{{- end }}

{{- define "tamis.seaweedfsSecret" -}}
{{- default (printf "%s-seaweedfs" (include "tamis.fullname" .)) .Values.seaweedfs.existingSecret }}
{{- end }}

{{/* What the `restricted` Pod Security Standard requires of a pod. */}}
{{- define "tamis.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* What it requires of a container, and a read-only root file system. */}}
{{- define "tamis.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* The start of the spec of every pod that runs one of Tamis' images. */}}
{{- define "tamis.podSpec" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  {{- include "tamis.podSecurityContext" . | nindent 2 }}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
{{- end }}

{{/* Scheduling of a pod. Takes a mapping with nodeSelector, tolerations, affinity, priorityClassName. */}}
{{- define "tamis.placement" -}}
{{- with .priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The body of a container that runs Tamis with the cluster's settings of object storage and the Hub. */}}
{{- define "tamis.container" -}}
imagePullPolicy: {{ .Values.image.pullPolicy | quote }}
terminationMessagePolicy: FallbackToLogsOnError
securityContext:
  {{- include "tamis.securityContext" . | nindent 2 }}
envFrom:
  - configMapRef:
      name: {{ include "tamis.fullname" . }}-environment
  {{- range list .Values.storage.azure.existingSecret .Values.storage.gcs.existingSecret }}
  {{- with . }}
  - secretRef:
      name: {{ . | quote }}
  {{- end }}
  {{- end }}
env:
  {{- include "tamis.secretEnv" . | nindent 2 }}
  {{- with .Values.pod.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- define "tamis.secretEnv" -}}
{{- $s3 := include "tamis.s3Secret" . | fromJson -}}
- name: TAMIS_HOME
  value: /cache/tamis
{{- if $s3.name }}
- name: AWS_ACCESS_KEY_ID
  valueFrom:
    secretKeyRef:
      name: {{ $s3.name | quote }}
      key: {{ $s3.id | quote }}
- name: AWS_SECRET_ACCESS_KEY
  valueFrom:
    secretKeyRef:
      name: {{ $s3.name | quote }}
      key: {{ $s3.secret | quote }}
{{- end }}
{{- if .Values.hub.existingSecret }}
- name: HF_TOKEN
  valueFrom:
    secretKeyRef:
      name: {{ .Values.hub.existingSecret | quote }}
      key: {{ .Values.hub.tokenKey | quote }}
{{- end }}
{{- end }}

{{/* Volumes of every pod of Tamis: writable folders, storage settings and CAs. */}}
{{- define "tamis.smallVolumeMounts" -}}
- name: cache
  mountPath: /cache
- name: tmp
  mountPath: /tmp
- name: aws-config
  mountPath: /etc/tamis/aws
  readOnly: true
{{- if or .Values.storage.s3.ca.configMap .Values.storage.s3.ca.secret }}
- name: storage-ca
  mountPath: /etc/tamis/storage-ca
  readOnly: true
{{- end }}
{{- if or .Values.hub.ca.configMap .Values.hub.ca.secret }}
- name: hub-ca
  mountPath: /etc/tamis/hub-ca
  readOnly: true
{{- end }}
{{- end }}

{{/* The same volumes and the model cache. */}}
{{- define "tamis.volumeMounts" -}}
{{ include "tamis.smallVolumeMounts" . }}
{{- if .Values.modelCache.enabled }}
- name: models
  mountPath: /cache/hf
{{- end }}
{{- end }}

{{/* A volume from a CA's ConfigMap or Secret. Takes a list: the volume's name, the section with configMap, secret, key. */}}
{{- define "tamis.caVolume" -}}
{{- $name := index . 0 }}
{{- $ca := index . 1 }}
{{- if $ca.configMap -}}
- name: {{ $name | quote }}
  configMap:
    name: {{ $ca.configMap | quote }}
    items:
      - key: {{ $ca.key | quote }}
        path: ca.crt
{{- else if $ca.secret -}}
- name: {{ $name | quote }}
  secret:
    secretName: {{ $ca.secret | quote }}
    items:
      - key: {{ $ca.key | quote }}
        path: ca.crt
{{- end }}
{{- end }}

{{- define "tamis.smallVolumes" -}}
- name: cache
  emptyDir: {}
- name: tmp
  emptyDir: {}
- name: aws-config
  configMap:
    name: {{ include "tamis.fullname" . }}-aws-config
{{- with include "tamis.caVolume" (list "storage-ca" .Values.storage.s3.ca) }}
{{ . }}
{{- end }}
{{- with include "tamis.caVolume" (list "hub-ca" .Values.hub.ca) }}
{{ . }}
{{- end }}
{{- end }}

{{- define "tamis.volumes" -}}
{{ include "tamis.smallVolumes" . }}
{{- if .Values.modelCache.enabled }}
- name: models
  persistentVolumeClaim:
    claimName: {{ include "tamis.modelCacheClaim" . | quote }}
{{- end }}
{{- end }}

{{/* Labels of a pod. They do not change with the chart's version, so an upgrade does not restart unchanged pods. */}}
{{- define "tamis.podLabels" -}}
{{ include "tamis.selectorLabels" . }}
app.kubernetes.io/part-of: tamis
{{- end }}

{{/* Metadata of a pod. Takes a list: the root context, the component. */}}
{{- define "tamis.podMetadata" -}}
{{- $root := index . 0 }}
{{- $component := index . 1 -}}
labels:
  {{- include "tamis.podLabels" $root | nindent 2 }}
  app.kubernetes.io/component: {{ $component | quote }}
  {{- with $root.Values.pod.labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with $root.Values.pod.annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* When a Job gives up: at once after a pod's exit code 78, by which a command says that no further pod can help. Evicted
and preempted pods do not count as failed. */}}
{{- define "tamis.podFailurePolicy" -}}
podFailurePolicy:
  rules:
    {{- include "tamis.permanentFailure" . | nindent 4 }}
    - action: Ignore
      onPodConditions:
        - type: DisruptionTarget
          status: "True"
{{- end }}

{{/* The rule about exit code 78 alone. */}}
{{- define "tamis.permanentFailure" -}}
- action: FailJob
  onExitCodes: {operator: In, values: [78]}
  onPodConditions: []  # Kubernetes' published schema requires it
{{- end }}

{{/* A Job. Jobs are immutable, so the name depends on the whole content, and an upgrade that changes it creates a new one.
Takes a list: the root context, the start of the name, the component, the spec as text. */}}
{{- define "tamis.job" -}}
{{- $spec := index . 3 -}}
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ printf "%s-%s" (index . 1) (sha256sum $spec | trunc 8) | quote }}
  labels:
    {{- include "tamis.labels" (index . 0) | nindent 4 }}
    app.kubernetes.io/component: {{ index . 2 | quote }}
spec:
  {{- $spec | trim | nindent 2 }}
{{- end }}
