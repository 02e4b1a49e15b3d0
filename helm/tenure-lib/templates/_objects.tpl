{{/*
A Service of the leader's pod alone, for routing.mode label or endpointSlice.

    {{ include "tenure-lib.leaderService" (dict "root" $ "selector" (dict "app" "web") "ports" (list (dict "port" 80 "targetPort" 8080))) }}

selector: the labels of the pods. ports: as in any Service, with numbers as target ports.
*/}}
{{- define "tenure-lib.leaderService" -}}
{{- include "tenure-lib.takes" (dict "of" "tenure-lib.leaderService" "given" . "takes" (list "selector" "ports")) }}
{{- $root := default . .root }}
{{- $v := include "tenure-lib.effective" . | fromYaml }}
{{- if eq $v.routing.mode "gate" }}
  {{- fail "tenure-lib: tenure-lib.leaderService needs tenure.routing.mode label or endpointSlice: with gate nobody tells Kubernetes who leads" }}
{{- end }}
{{- range required "tenure-lib: tenure-lib.leaderService needs the ports of the Service" .ports }}
  {{- if kindIs "string" (default .port .targetPort) }}
    {{- fail "tenure-lib: tenure-lib.leaderService takes numbers as target ports" }}
  {{- end }}
{{- end -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ include "tenure-lib.leaderServiceName" . }}
  labels:
    {{- include "tenure-lib.labels" $root | nindent 4 }}
spec:
  type: ClusterIP
  {{- if eq $v.routing.mode "label" }}
  selector:
    {{- toYaml (required "tenure-lib: tenure-lib.leaderService needs the selector of the pods" .selector) | nindent 4 }}
    tenure.dev/election: {{ default (first $v.elections) $v.routing.election }}
    tenure.dev/role: leader
  {{- end }}
  ports:
    {{- toYaml .ports | nindent 4 }}
{{- end }}

{{/*
What routing needs to be allowed, and no more: a Role, and a RoleBinding to the pods' ServiceAccount.

    {{ include "tenure-lib.role" (dict "root" $ "serviceAccountName" "web") }}
*/}}
{{- define "tenure-lib.role" -}}
{{- include "tenure-lib.takes" (dict "of" "tenure-lib.role" "given" . "takes" (list "serviceAccountName")) }}
{{- $root := default . .root }}
{{- $v := include "tenure-lib.effective" . | fromYaml }}
{{- $name := include "tenure-lib.leaderServiceName" . }}
{{- if eq $v.routing.mode "gate" }}
  {{- fail "tenure-lib: tenure-lib.role is for tenure.routing.mode label or endpointSlice: gate needs no rights" }}
{{- end -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ $name }}
  labels:
    {{- include "tenure-lib.labels" $root | nindent 4 }}
rules:
  {{- if eq $v.routing.mode "label" }}
  - apiGroups: [""]
    resources: [pods]
    verbs: [get, list, patch]
  {{- else }}
  - apiGroups: [""]
    resources: [services]
    resourceNames: [{{ $name }}]
    verbs: [get]
  - apiGroups: [discovery.k8s.io]
    resources: [endpointslices]
    verbs: [create]
  - apiGroups: [discovery.k8s.io]
    resources: [endpointslices]
    resourceNames: [{{ $name }}-tenure]
    verbs: [get, update]
  {{- end }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ $name }}
  labels:
    {{- include "tenure-lib.labels" $root | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: {{ $name }}
subjects:
  - kind: ServiceAccount
    name: {{ required "tenure-lib: tenure-lib.role needs the serviceAccountName of the pods" .serviceAccountName }}
    namespace: {{ $root.Release.Namespace }}
{{- end }}

{{/*
A PodMonitor for the sidecars.

    {{ include "tenure-lib.podMonitor" (dict "root" $ "selector" (dict "app" "web")) }}
*/}}
{{- define "tenure-lib.podMonitor" -}}
{{- include "tenure-lib.takes" (dict "of" "tenure-lib.podMonitor" "given" . "takes" (list "selector")) }}
{{- $root := default . .root }}
{{- $v := include "tenure-lib.effective" . | fromYaml -}}
apiVersion: monitoring.coreos.com/v1
kind: PodMonitor
metadata:
  name: {{ default (printf "%s-tenure" (printf "%s-%s" $root.Release.Name $root.Chart.Name | trunc 56 | trimSuffix "-")) $v.podMonitor.name }}
  labels:
    {{- include "tenure-lib.labels" $root | nindent 4 }}
    {{- with $v.podMonitor.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  selector:
    matchLabels:
      {{- toYaml (required "tenure-lib: tenure-lib.podMonitor needs the selector of the pods" .selector) | nindent 6 }}
  podMetricsEndpoints:
    - port: tenure
      path: /metrics
      {{- with $v.podMonitor.interval }}
      interval: {{ . }}
      {{- end }}
{{- end }}

{{- define "tenure-lib.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/component: leader-election
{{- end }}
