{{- define "moco.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "moco.storeLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/component: store
{{- end }}

{{/* Secret with the store's credentials. */}}
{{- define "moco.storeSecret" -}}
{{- .Values.store.createSecret | ternary "moco-transfer-store" .Values.store.existingSecret }}
{{- end }}

{{/* URL of the store, as pods reach it. */}}
{{- define "moco.storeEndpoint" -}}
{{- with .Values.store }}
{{- if .server.enabled }}http://moco-transfer-store.{{ $.Release.Namespace }}:{{ .server.port }}
{{- else }}{{ .endpoint }}{{ end }}
{{- end }}
{{- end }}

{{/* Claim of the data set with that name. */}}
{{- define "moco.claim" -}}
{{- index . 1 "existingClaim" | default (index . 0 | replace "_" "-") }}
{{- end }}

{{/* Image of the pods that the chart itself runs. */}}
{{- define "moco.image" -}}
{{- .Values.images.torch | default (printf "moco-transfer/torch:%s" .Chart.AppVersion) }}
{{- end }}

{{/* What a pod needs to pass the Pod Security Standard restricted. */}}
{{- define "moco.podSecurity" -}}
runAsNonRoot: true
runAsUser: 1000
runAsGroup: 1000
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "moco.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* Pod of the project's image that talks to the store; takes the root and the command. */}}
{{- define "moco.storeClient" -}}
{{- $command := index . 1 }}
{{- with index . 0 -}}
restartPolicy: Never
serviceAccountName: {{ .Values.serviceAccount.name | quote }}
automountServiceAccountToken: false
securityContext: {{- include "moco.podSecurity" . | nindent 2 }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
containers:
  - name: store
    image: {{ include "moco.image" . | quote }}
    imagePullPolicy: IfNotPresent
    command: {{- toYaml $command | nindent 6 }}
    env:
      - {name: HOME, value: /tmp}
      - {name: MOCO_S3_ENDPOINT, value: {{ include "moco.storeEndpoint" . | quote }}}
      {{- with .Values.store.region }}
      - {name: AWS_REGION, value: {{ quote . }}}
      {{- end }}
      {{- if .Values.store.caConfigMap }}
      - {name: AWS_CA_BUNDLE, value: /etc/moco-transfer/ca.crt}
      {{- end }}
      - name: AWS_ACCESS_KEY_ID
        valueFrom: {secretKeyRef: {name: {{ include "moco.storeSecret" . | quote }}, key: {{ .Values.store.accessKeyField | quote }}}}
      - name: AWS_SECRET_ACCESS_KEY
        valueFrom: {secretKeyRef: {name: {{ include "moco.storeSecret" . | quote }}, key: {{ .Values.store.secretKeyField | quote }}}}
    resources:
      requests: {cpu: 100m, memory: 256Mi}
      limits: {cpu: "1", memory: 1Gi}
    securityContext: {{- include "moco.containerSecurity" . | nindent 6 }}
    volumeMounts:
      - {name: scratch, mountPath: /tmp}
      {{- if .Values.store.caConfigMap }}
      - {name: ca, mountPath: /etc/moco-transfer, readOnly: true}
      {{- end }}
volumes:
  - {name: scratch, emptyDir: {sizeLimit: 1Gi}}
  {{- with .Values.store.caConfigMap }}
  - {name: ca, configMap: {name: {{ quote . }}}}
  {{- end }}
{{- end }}
{{- end }}
