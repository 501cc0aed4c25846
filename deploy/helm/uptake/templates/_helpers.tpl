{{- /* Every helper takes a dict: root (the chart's context), service (the image and
       component), values (the part of Values that belongs to it). */ -}}

{{- define "uptake.labels" -}}
app.kubernetes.io/name: uptake
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component | default .service }}
{{- end }}

{{- /* metadata of an object, without its name. */ -}}
{{- define "uptake.meta" -}}
labels:
  {{- include "uptake.labels" . | nindent 2 }}
  app.kubernetes.io/version: {{ .root.Values.image.tag | default .root.Chart.AppVersion | quote }}
  app.kubernetes.io/managed-by: {{ .root.Release.Service }}
  helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- with merge (dict) (.annotations | default dict) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "uptake.podMeta" -}}
labels:
  {{- include "uptake.labels" . | nindent 2 }}
  {{- with .values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with merge (dict) (.values.podAnnotations | default dict) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "uptake.accountName" -}}
{{- $sa := .values.serviceAccount | default dict -}}
{{- if $sa.name -}}
{{ $sa.name }}
{{- else if .root.Values.serviceAccount.create -}}
{{ .root.Release.Name }}-{{ .account | default .component | default .service }}
{{- else -}}
default
{{- end -}}
{{- end }}

{{- define "uptake.account" -}}
{{- $sa := .values.serviceAccount | default dict -}}
{{- if and .root.Values.serviceAccount.create (not $sa.name) }}
---
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "uptake.accountName" . }}
  {{- $all := merge (dict) ($sa.annotations | default dict) .root.Values.serviceAccount.annotations (.hook | default dict) }}
  {{- include "uptake.meta" (merge (dict "annotations" $all) .) | nindent 2 }}
automountServiceAccountToken: false
{{- end }}
{{- end }}

{{- define "uptake.pod" -}}
serviceAccountName: {{ include "uptake.accountName" . }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  {{- toYaml .root.Values.podSecurityContext | nindent 2 }}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.nodeSelector | default .root.Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations | default .root.Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity | default .root.Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.priorityClassName | default .root.Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- if not .job }}
{{- $labels := include "uptake.labels" . | fromYaml }}
{{- with .root.Values.topologySpreadConstraints }}
topologySpreadConstraints:
{{- range . }}
  - {{ merge (dict "labelSelector" (dict "matchLabels" $labels)) . | toJson }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "uptake.container" -}}
image: {{ .root.Values.image.prefix }}/{{ .service }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
securityContext:
  {{- toYaml .root.Values.containerSecurityContext | nindent 2 }}
{{- end }}

{{- define "uptake.probes" -}}
startupProbe:
  httpGet: {path: /healthz, port: metrics}
  periodSeconds: 2
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /healthz, port: metrics}
  periodSeconds: 10
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: metrics}
  periodSeconds: 5
{{- end }}

{{- /* A Kubernetes quantity of memory in bytes. */ -}}
{{- define "uptake.bytes" -}}
{{- $q := toString . -}}
{{- $n := regexFind "^[0-9.]+" $q | float64 -}}
{{- $unit := regexReplaceAll "^[0-9.]+" $q "" -}}
{{- $factors := dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- if not (hasKey $factors $unit) }}{{ fail (printf "memory %q is no quantity that the chart knows: write such as 512Mi or 4Gi" $q) }}{{ end -}}
{{- mulf $n (get $factors $unit) | int64 -}}
{{- end }}

{{- /* The larger of two quantities of memory, as declared or as MiB. */ -}}
{{- define "uptake.larger" -}}
{{- $have := include "uptake.bytes" .have | int64 -}}
{{- if gt (.need | int64) $have -}}{{ ceil (divf .need 1048576) | int64 }}Mi{{- else -}}{{ .have }}{{- end -}}
{{- end }}

{{- /* Costs of docs/performance.json and assumptions of test/sizing, of which a
       test checks that they are these. */ -}}
{{- define "uptake.costs" -}}
gatewaySingle: 22.63
gatewayBatch: 2.04
enricher: 5.3
writer: 1.75
idBytes: 3
idDiskBytes: 22.05
identityBytes: 165.86
{{- end }}

{{- /* What load.eventsPerSecond needs, as YAML: ids of a partition, memory and disk
       (bytes) and CPU (millicores) of one instance. Empty without a load. */ -}}
{{- define "uptake.plan" -}}
{{- $l := .root.Values.load -}}
{{- if gt (float64 $l.eventsPerSecond) 0.0 -}}
{{- $c := include "uptake.costs" . | fromYaml -}}
{{- $rate := float64 $l.eventsPerSecond -}}
{{- $size := maxf 1.0 (divf $l.eventBytes 600) -}}
{{- $hours := regexFind "^[0-9.]+" $l.dedupWindow | float64 -}}
{{- $ids := mulf (divf $rate $l.peakToMean) $hours 3600 -}}
{{- $perRequest := divf (subf $c.gatewaySingle $c.gatewayBatch) 0.99 -}}
{{- $perEvent := maxf 0.0 (subf $c.gatewaySingle $perRequest) -}}
{{- $enrichers := .root.Values.enricher.replicas -}}
{{- if .root.Values.enricher.keda.enabled }}{{ $enrichers = .root.Values.enricher.keda.minReplicas }}{{ end -}}
{{- $gateways := .root.Values.gateway.replicas -}}
{{- if .root.Values.gateway.autoscaling.enabled }}{{ $gateways = .root.Values.gateway.autoscaling.maxReplicas }}{{ end -}}
{{- $writers := .root.Values.writer.replicas -}}
{{- if .root.Values.writer.keda.enabled }}{{ $writers = .root.Values.writer.keda.minReplicas }}{{ end -}}
{{- $memory := mulf 2 (addf (mulf $ids $c.idBytes) (mulf $l.identities $c.identityBytes)) -}}
maxIDs: {{ ceil (divf (mulf $ids $l.skew) .root.Values.kafka.topics.partitions) | int64 }}
enricherMemory: {{ ceil (divf $memory $enrichers $l.busy) | int64 }}
enricherDisk: {{ ceil (divf (mulf $ids $c.idDiskBytes) $enrichers $l.busy) | int64 }}
gatewayCPU: {{ ceil (divf (mulf $rate (addf (mulf $perEvent $size) (divf $perRequest $l.batch)) 0.001) $gateways $l.busy) | int64 }}
enricherCPU: {{ ceil (divf (mulf $rate $c.enricher $size 0.001) $enrichers $l.busy) | int64 }}
writerCPU: {{ ceil (divf (mulf $rate $c.writer $size 0.001) $writers $l.busy) | int64 }}
{{- end -}}
{{- end }}

{{- /* resources of a service: those declared, or what the load needs where that is
       more. Takes memory (bytes) and cpu (millicores) beside the rest. */ -}}
{{- define "uptake.resources" -}}
{{- $r := deepCopy .values.resources -}}
{{- if .memory -}}
{{- $_ := set $r.limits "memory" (include "uptake.larger" (dict "have" $r.limits.memory "need" .memory)) -}}
{{- $_ := set $r.requests "memory" (include "uptake.larger" (dict "have" $r.requests.memory "need" .memory)) -}}
{{- end -}}
{{- if .cpu -}}
{{- $have := toString $r.requests.cpu -}}
{{- $milli := ternary (trimSuffix "m" $have | float64) (mulf (float64 (trimSuffix "m" $have)) 1000) (hasSuffix "m" $have) -}}
{{- if gt (float64 .cpu) (float64 $milli) }}{{ $_ := set $r.requests "cpu" (printf "%dm" (int64 .cpu)) }}{{ end -}}
{{- end -}}
{{- toYaml $r -}}
{{- end }}

{{- /* Go's collector keeps the heap below nine tenths of the limit. Takes the text
       of resources. */ -}}
{{- define "uptake.memoryEnv" -}}
{{- with (fromYaml .).limits.memory }}
- {name: GOMEMLIMIT, value: "{{ mulf (include "uptake.bytes" . | float64) 0.9 | int64 }}"}
{{- end }}
{{- end }}

{{- define "uptake.kafkaEnv" -}}
{{- $k := .root.Values.kafka -}}
- {name: UPTAKE_KAFKA_BROKERS, value: {{ required "kafka.brokers must name your brokers" (join "," $k.brokers) | quote }}}
{{- with $k.prefix }}
- {name: UPTAKE_KAFKA_PREFIX, value: {{ . | quote }}}
{{- end }}
{{- if $k.tls.enabled }}
- {name: UPTAKE_KAFKA_TLS, value: "true"}
{{- with $k.tls.caSecret }}
- {name: UPTAKE_KAFKA_TLS_CA, value: /etc/uptake-kafka-ca/ca.crt}
{{- end }}
{{- with $k.tls.clientSecret }}
- {name: UPTAKE_KAFKA_TLS_CERT, value: /etc/uptake-kafka-client/tls.crt}
- {name: UPTAKE_KAFKA_TLS_KEY, value: /etc/uptake-kafka-client/tls.key}
{{- end }}
{{- with $k.tls.serverName }}
- {name: UPTAKE_KAFKA_TLS_SERVER_NAME, value: {{ . | quote }}}
{{- end }}
{{- end }}
{{- with $k.sasl }}
{{- if .mechanism }}
- {name: UPTAKE_KAFKA_SASL_MECHANISM, value: {{ .mechanism | quote }}}
- {name: UPTAKE_KAFKA_SASL_USER, value: {{ .user | quote }}}
- name: UPTAKE_KAFKA_SASL_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ required "kafka.sasl.existingSecret must name a secret" .existingSecret }}, key: password}}
{{- end }}
{{- end }}
{{- end }}

{{- define "uptake.registryEnv" -}}
{{- with .root.Values.schemaRegistry }}
{{- if .urls }}
- {name: UPTAKE_SCHEMA_REGISTRY, value: {{ join "," .urls | quote }}}
{{- if .user }}
- {name: UPTAKE_SCHEMA_REGISTRY_USER, value: {{ .user | quote }}}
- name: UPTAKE_SCHEMA_REGISTRY_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ required "schemaRegistry.existingSecret must name a secret" .existingSecret }}, key: password}}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- /* How ClickHouse is reached; user and secret are those of login, else the
       writer's. */ -}}
{{- define "uptake.clickhouseEnv" -}}
{{- $c := .root.Values.clickhouse -}}
{{- $login := .login | default dict -}}
- {name: UPTAKE_CLICKHOUSE_ADDR, value: {{ required "clickhouse.addr must name your server" $c.addr | quote }}}
- {name: UPTAKE_CLICKHOUSE_DATABASE, value: {{ $c.database | quote }}}
- {name: UPTAKE_CLICKHOUSE_USER, value: {{ $login.user | default $c.user | quote }}}
- name: UPTAKE_CLICKHOUSE_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ required "clickhouse.existingSecret must name a secret" ($login.existingSecret | default $c.existingSecret) }}, key: password}}
{{- if $c.tls.enabled }}
- {name: UPTAKE_CLICKHOUSE_TLS, value: "true"}
{{- with $c.tls.caSecret }}
- {name: UPTAKE_CLICKHOUSE_TLS_CA, value: /etc/uptake-clickhouse-ca/ca.crt}
{{- end }}
{{- with $c.tls.clientSecret }}
- {name: UPTAKE_CLICKHOUSE_TLS_CERT, value: /etc/uptake-clickhouse-client/tls.crt}
- {name: UPTAKE_CLICKHOUSE_TLS_KEY, value: /etc/uptake-clickhouse-client/tls.key}
{{- end }}
{{- with $c.tls.serverName }}
- {name: UPTAKE_CLICKHOUSE_TLS_SERVER_NAME, value: {{ . | quote }}}
{{- end }}
{{- end }}
{{- end }}

{{- define "uptake.writerEnv" -}}
{{ include "uptake.kafkaEnv" . }}
{{- include "uptake.registryEnv" . }}
{{ include "uptake.clickhouseEnv" . }}
- {name: UPTAKE_BLOCK_RECORDS, value: {{ .root.Values.writer.blockRecords | quote }}}
- {name: UPTAKE_BLOCK_INTERVAL, value: {{ .root.Values.writer.blockInterval | quote }}}
{{- end }}

{{- define "uptake.privacyEnv" -}}
{{- if .root.Values.privacy.existingSecret }}
- {name: UPTAKE_PRIVACY_FILE, value: /etc/uptake-privacy/privacy.yaml}
{{- end }}
{{- end }}

{{- /* Secrets that a pod mounts, as YAML: volume name to secret. What it needs is
       said by uses, a list of kafka, clickhouse, privacy, keys, targets and users. Each is
       mounted at /etc/uptake-<name>. */ -}}
{{- define "uptake.secrets" -}}
{{- $v := .root.Values -}}
{{- $s := dict -}}
{{- if and (has "kafka" .uses) $v.kafka.tls.enabled -}}
{{- with $v.kafka.tls.caSecret }}{{ $_ := set $s "kafka-ca" . }}{{ end -}}
{{- with $v.kafka.tls.clientSecret }}{{ $_ := set $s "kafka-client" . }}{{ end -}}
{{- end -}}
{{- if and (has "clickhouse" .uses) $v.clickhouse.tls.enabled -}}
{{- with $v.clickhouse.tls.caSecret }}{{ $_ := set $s "clickhouse-ca" . }}{{ end -}}
{{- with $v.clickhouse.tls.clientSecret }}{{ $_ := set $s "clickhouse-client" . }}{{ end -}}
{{- end -}}
{{- if has "privacy" .uses -}}
{{- with $v.privacy.existingSecret }}{{ $_ := set $s "privacy" . }}{{ end -}}
{{- end -}}
{{- if has "targets" .uses -}}
{{- with $v.alerts.targetsSecret }}{{ $_ := set $s "targets" . }}{{ end -}}
{{- end -}}
{{- if has "users" .uses -}}
{{- with $v.clickhouse.roles.usersSecret }}{{ $_ := set $s "users" . }}{{ end -}}
{{- end -}}
{{- if has "keys" .uses -}}
{{- $_ := set $s "keys" (required "gateway.existingKeysSecret must name a secret with keys.yaml" $v.gateway.existingKeysSecret) -}}
{{- end -}}
{{- toYaml $s -}}
{{- end }}

{{- /* volumes and mounts, both empty where there are none. `mounts` and `volumes`
       of the dict are those that a service always has. */ -}}
{{- define "uptake.mounts" -}}
{{- $list := .mounts | default list -}}
{{- range $name, $_ := include "uptake.secrets" . | fromYaml -}}
{{- $list = append $list (dict "name" $name "mountPath" (printf "/etc/uptake-%s" $name) "readOnly" true) -}}
{{- end -}}
{{- with concat $list (.values.extraVolumeMounts | default list) }}
volumeMounts:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "uptake.volumes" -}}
{{- $list := .volumes | default list -}}
{{- range $name, $secret := include "uptake.secrets" . | fromYaml -}}
{{- $list = append $list (dict "name" $name "secret" (dict "secretName" $secret)) -}}
{{- end -}}
{{- with concat $list (.values.extraVolumes | default list) }}
volumes:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "uptake.extraEnv" -}}
{{- with .values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "uptake.pdb" -}}
{{- with .values.podDisruptionBudget }}
{{- if .enabled }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ $.root.Release.Name }}-{{ $.component | default $.service }}
  {{- include "uptake.meta" $ | nindent 2 }}
spec:
  maxUnavailable: {{ .maxUnavailable }}
  selector:
    matchLabels:
      {{- include "uptake.labels" $ | nindent 6 }}
{{- end }}
{{- end }}
{{- end }}

{{- /* A KEDA scaler by the lag of a consumer group. Takes kind, group, topic and the
       values' keda. */ -}}
{{- define "uptake.keda" -}}
{{- $k := .root.Values.kafka }}
{{- $name := printf "%s-%s" .root.Release.Name .service }}
{{- if .values.keda.enabled }}
---
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata:
  name: {{ $name }}
  {{- include "uptake.meta" . | nindent 2 }}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: {{ .kind }}, name: {{ $name }}}
  minReplicaCount: {{ .values.keda.minReplicas }}
  maxReplicaCount: {{ min .values.keda.maxReplicas $k.topics.partitions }}
  pollingInterval: 15
  # Without the brokers the lag is unknown: keep what there is.
  fallback: {failureThreshold: 4, replicas: {{ .values.keda.minReplicas }}, behavior: currentReplicasIfHigher}
  advanced:
    horizontalPodAutoscalerConfig:
      behavior:
        scaleUp:
          stabilizationWindowSeconds: 60
          policies: [{type: Pods, value: 2, periodSeconds: 120}]
        scaleDown:
          stabilizationWindowSeconds: 1800
          policies: [{type: Pods, value: 1, periodSeconds: 600}]
  triggers:
    - type: kafka
      metadata:
        bootstrapServers: {{ join "," $k.brokers | quote }}
        consumerGroup: {{ $k.prefix }}{{ .group }}
        topic: {{ $k.prefix }}{{ .topic }}
        lagThreshold: {{ .values.keda.lagRecords | int64 | toString | quote }}
        offsetResetPolicy: earliest
        tls: {{ ternary "enable" "disable" $k.tls.enabled }}
        sasl: {{ get (dict "" "none" "PLAIN" "plaintext" "SCRAM-SHA-256" "scram_sha256" "SCRAM-SHA-512" "scram_sha512") $k.sasl.mechanism }}
{{- if or $k.sasl.mechanism $k.tls.caSecret $k.tls.clientSecret }}
      authenticationRef: {name: {{ $name }}}
---
apiVersion: keda.sh/v1alpha1
kind: TriggerAuthentication
metadata:
  name: {{ $name }}
  {{- include "uptake.meta" . | nindent 2 }}
spec:
  secretTargetRef:
{{- if $k.sasl.mechanism }}
    - {parameter: username, name: {{ $name }}-keda, key: user}
    - {parameter: password, name: {{ $k.sasl.existingSecret }}, key: password}
{{- end }}
{{- with $k.tls.caSecret }}
    - {parameter: ca, name: {{ . }}, key: ca.crt}
{{- end }}
{{- with $k.tls.clientSecret }}
    - {parameter: cert, name: {{ . }}, key: tls.crt}
    - {parameter: key, name: {{ . }}, key: tls.key}
{{- end }}
{{- if $k.sasl.mechanism }}
---
# KEDA reads the user from a secret only; the name is none.
apiVersion: v1
kind: Secret
metadata:
  name: {{ $name }}-keda
  {{- include "uptake.meta" . | nindent 2 }}
stringData: {user: {{ $k.sasl.user | quote }}}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
