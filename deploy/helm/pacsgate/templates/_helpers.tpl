{{- define "pacsgate.labels" -}}
app.kubernetes.io/name: pacsgate
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "pacsgate.selector" -}}
app.kubernetes.io/name: pacsgate
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* The pod of one role. Arguments: root, component, roles, values, size (of the data folder), environment, ports, probes */}}
{{- define "pacsgate.pod" -}}
metadata:
  labels:
    {{- include "pacsgate.selector" . | nindent 4 }}
  annotations:
    checksum/config: {{ .root.Values.config | sha256sum }}
spec:
  {{- with .root.Values.image.pullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  automountServiceAccountToken: false
  # The supervisor lets its processes finish for 40 s.
  terminationGracePeriodSeconds: 60
  securityContext:
    runAsNonRoot: true
    runAsUser: 10001
    runAsGroup: 10001
    fsGroup: 10001
    seccompProfile:
      type: RuntimeDefault
  {{- with .values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "pacsgate.selector" . | nindent 10 }}
  containers:
    - name: {{ .component }}
      image: "{{ .root.Values.image.repository }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}"
      imagePullPolicy: {{ .root.Values.image.pullPolicy }}
      args: ["up", "--roles", {{ .roles | quote }}]
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities:
          drop: [ALL]
      env:
        - name: PACSGATE_CONFIG
          value: /etc/pacsgate/pacsgate.toml
        - name: PACSGATE_STORAGE__OBJECTS_URL
          value: {{ .root.Values.objects.url | quote }}
        {{- with .root.Values.objects.endpointUrl }}
        - name: PACSGATE_STORAGE__OBJECTS_ENDPOINT_URL
          value: {{ . | quote }}
        {{- end }}
        - name: AWS_REGION
          value: {{ .root.Values.objects.region | quote }}
        {{- range $name, $value := .environment }}
        - name: {{ $name }}
          value: {{ $value | quote }}
        {{- end }}
      envFrom:
        - secretRef:
            name: {{ .root.Values.existingSecret }}
      {{- with .port }}
      ports:
        - name: {{ .name }}
          containerPort: {{ .number }}
      {{- end }}
      {{- with .probes }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
      resources:
        {{- toYaml .values.resources | nindent 8 }}
      volumeMounts:
        - name: config
          mountPath: /etc/pacsgate
          readOnly: true
        - name: data
          mountPath: /data
        - name: tmp
          mountPath: /tmp
  volumes:
    - name: config
      configMap:
        name: {{ .root.Release.Name }}-pacsgate
    # Nothing in it is needed again: objects are in the bucket, the index in PostgreSQL, unacknowledged bytes are resent.
    - name: data
      emptyDir:
        sizeLimit: {{ .size }}
    - name: tmp
      emptyDir:
        sizeLimit: 1Gi
{{- end }}
