{{- define "uptake.image" -}}
{{ .root.Values.image.prefix }}/{{ .service }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}
{{- end }}

{{- define "uptake.labels" -}}
app.kubernetes.io/name: uptake
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .service }}
{{- end }}

{{- define "uptake.pod" -}}
automountServiceAccountToken: false
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  seccompProfile: {type: RuntimeDefault}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "uptake.container" -}}
image: {{ include "uptake.image" . }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
securityContext:
  readOnlyRootFilesystem: true
  allowPrivilegeEscalation: false
  capabilities: {drop: [ALL]}
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

{{- define "uptake.kafkaEnv" -}}
- {name: UPTAKE_KAFKA_BROKERS, value: {{ required "kafka.brokers must name your brokers" (join "," .root.Values.kafka.brokers) | quote }}}
- {name: UPTAKE_KAFKA_TLS, value: {{ .root.Values.kafka.tls | quote }}}
{{- with .root.Values.kafka.sasl }}
{{- if .mechanism }}
- {name: UPTAKE_KAFKA_SASL_MECHANISM, value: {{ .mechanism | quote }}}
- {name: UPTAKE_KAFKA_SASL_USER, value: {{ .user | quote }}}
- name: UPTAKE_KAFKA_SASL_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ required "kafka.sasl.existingSecret must name a secret" .existingSecret }}, key: password}}
{{- end }}
{{- end }}
{{- end }}

{{- define "uptake.privacyEnv" -}}
{{- if .root.Values.privacy.existingSecret }}
- {name: UPTAKE_PRIVACY_FILE, value: /etc/uptake-privacy/privacy.yaml}
{{- end }}
{{- end }}

{{- define "uptake.privacyMount" -}}
{{- if .root.Values.privacy.existingSecret }}
- {name: privacy, mountPath: /etc/uptake-privacy, readOnly: true}
{{- end }}
{{- end }}

{{- define "uptake.privacyVolume" -}}
{{- with .root.Values.privacy.existingSecret }}
- name: privacy
  secret: {secretName: {{ . }}}
{{- end }}
{{- end }}

{{- define "uptake.clickhouseEnv" -}}
- {name: UPTAKE_CLICKHOUSE_ADDR, value: {{ required "clickhouse.addr must name your server" .root.Values.clickhouse.addr | quote }}}
- {name: UPTAKE_CLICKHOUSE_DATABASE, value: {{ .root.Values.clickhouse.database | quote }}}
- {name: UPTAKE_CLICKHOUSE_USER, value: {{ .root.Values.clickhouse.user | quote }}}
- name: UPTAKE_CLICKHOUSE_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ required "clickhouse.existingSecret must name a secret" .root.Values.clickhouse.existingSecret }}, key: password}}
{{- end }}

{{- define "uptake.writerEnv" -}}
{{ include "uptake.clickhouseEnv" . }}
- {name: UPTAKE_BLOCK_RECORDS, value: {{ .root.Values.writer.blockRecords | quote }}}
- {name: UPTAKE_BLOCK_INTERVAL, value: {{ .root.Values.writer.blockInterval | quote }}}
{{- end }}
