{{/*
Every value with its default. A user's chart sets them under `tenure:` in its values.yaml; what it leaves out is here.
*/}}
{{- define "tenure-lib.defaults" -}}
# The daemon's configuration in its own words: each key of `tenure config example`, given to it as environment, so that no
# secret and no file is needed. `elections` (names) and `etcd.endpoints` have to be said.
config:
  elections: []
  etcd:
    endpoints: []
  http:
    # On IPv6: "[::]:4790".
    public: 0.0.0.0:4790
    # Where others reach this pod; Kubernetes puts its address in for $(POD_IP). Name the application's port, if redirects
    # shall lead there. On IPv6: http://[$(POD_IP)]:4790. Default: http://$(POD_IP) and the port of http.public.
    advertise_url: ""
# A Secret with the password of config.etcd.username.
etcdAuth:
  existingSecret: ""
  passwordKey: password
# A Secret with the certificates for https endpoints. Certificate and key of our own: for mutual TLS, both or none.
etcdTls:
  existingSecret: ""
  caKey: ca.crt
  certKey: ""
  keyKey: ""
# How Services find the leader. gate: they need not, since your application or proxy asks the gate. label: the daemon labels
# the leader's pod. endpointSlice: the leader writes the EndpointSlice of a Service without a selector.
routing:
  mode: gate
  # Which election; default: the first.
  election: ""
  # The Service of the leader; default: <release>-<chart>-leader.
  service: ""
image:
  registry: ghcr.io
  repository: tenure-dev/tenure
  # Default: the version of this library.
  tag: ""
  digest: ""
  pullPolicy: IfNotPresent
# It keeps under 10 MiB; the limit leaves room for many connections.
resources:
  requests:
    cpu: 10m
    memory: 16Mi
  limits:
    memory: 64Mi
# Whether the pod is ready only while its sidecar is: started, has met etcd once, does not drain. Never: whether it leads.
readinessProbe: true
# Mode classic only: for so long, such as 25s, a stopping pod leads on, until its application says `drained`. Needs an
# application that does, one election, and a terminationGracePeriodSeconds that is longer.
waitForDrained: ""
# More variables, as in any container.
extraEnv: []
# More labels and annotations of a PodMonitor; the operator selects by labels.
podMonitor:
  labels: {}
  interval: ""
{{- end }}

{{/* The values in effect, as YAML. Argument: the root of the user's chart. */}}
{{- define "tenure-lib.values" -}}
{{- $defaults := include "tenure-lib.defaults" . | fromYaml }}
{{- $given := deepCopy (default dict .Values.tenure) }}
{{- include "tenure-lib.known" (dict "path" "tenure" "given" $given "defaults" $defaults) }}
{{- $v := mergeOverwrite $defaults $given }}
{{- include "tenure-lib.validate" (dict "v" $v "given" (default dict $given.config)) }}
{{- if not $v.config.http.advertise_url }}
  {{- $_ := set $v.config.http "advertise_url" (printf "http://$(POD_IP):%s" (include "tenure-lib.port" $v)) }}
{{- end }}
{{- toYaml $v }}
{{- end }}

{{/* A key that the defaults do not have is a typo. `config` is the daemon's to judge, and the others are Kubernetes'. */}}
{{- define "tenure-lib.known" -}}
{{- range $key, $value := .given }}
  {{- $path := printf "%s.%s" $.path $key }}
  {{- if not (hasKey $.defaults $key) }}
    {{- fail (printf "tenure-lib: there is no value %s; there are: %s" $path (keys $.defaults | sortAlpha | join ", ")) }}
  {{- end }}
  {{- if has $key (list "etcdAuth" "etcdTls" "routing" "image" "podMonitor") }}
    {{- if not (kindIs "map" $value) }}
      {{- fail (printf "tenure-lib: %s must be a mapping" $path) }}
    {{- end }}
    {{- range $inner := keys $value }}
      {{- if not (hasKey (get $.defaults $key) $inner) }}
        {{- fail (printf "tenure-lib: there is no value %s.%s; there are: %s" $path $inner (get $.defaults $key | keys | sortAlpha | join ", ")) }}
      {{- end }}
    {{- end }}
  {{- end }}
{{- end }}
{{- end }}

{{/* What would start and be wrong, or not start, is refused here, with what to do. */}}
{{- define "tenure-lib.validate" -}}
{{- $v := .v }}
{{- $c := $v.config }}
{{- range $key, $list := dict "elections" $c.elections "etcd.endpoints" $c.etcd.endpoints }}
  {{- if not (or (empty $list) (kindIs "slice" $list)) }}
    {{- fail (printf "tenure-lib: tenure.config.%s must be a list" $key) }}
  {{- end }}
{{- end }}
{{- if not $c.elections }}
  {{- fail "tenure-lib: tenure.config.elections names the leaderships to hold, and is empty: say e.g. [orders]" }}
{{- end }}
{{- range $c.elections }}
  {{- if not (kindIs "string" .) }}
    {{- fail "tenure-lib: tenure.config.elections takes names only: the rest of an election's settings needs the daemon's file" }}
  {{- end }}
{{- end }}
{{- if not $c.etcd.endpoints }}
  {{- fail "tenure-lib: tenure.config.etcd.endpoints names etcd's members, and is empty: say e.g. [https://etcd-0.etcd:2379, https://etcd-1.etcd:2379, https://etcd-2.etcd:2379]" }}
{{- end }}
{{- range $c.etcd.endpoints }}
  {{- if and (hasPrefix "https:" .) (not $v.etcdTls.existingSecret) }}
    {{- fail (printf "tenure-lib: %s needs to know whom to trust: tenure.etcdTls.existingSecret names a Secret with ca.crt" .) }}
  {{- end }}
{{- end }}
{{- if ne (empty $c.etcd.username) (empty $v.etcdAuth.existingSecret) }}
  {{- fail "tenure-lib: tenure.config.etcd.username and tenure.etcdAuth.existingSecret (a Secret with the password) go together: both or none" }}
{{- end }}
{{- if ne (empty $v.etcdTls.certKey) (empty $v.etcdTls.keyKey) }}
  {{- fail "tenure-lib: tenure.etcdTls.certKey and tenure.etcdTls.keyKey go together: both or none" }}
{{- end }}
{{- if or (hasKey .given "id") (hasKey .given "kubernetes") }}
  {{- fail "tenure-lib: tenure.config.id and tenure.config.kubernetes are set by the library: the id is the pod's name, and tenure.routing says the rest" }}
{{- end }}
{{- if hasKey (default dict (dig "http" dict .given)) "control" }}
  {{- fail "tenure-lib: tenure.config.http.control is set by the library: the application finds the socket at /run/tenure/control.sock" }}
{{- end }}
{{- if not (has $v.routing.mode (list "gate" "label" "endpointSlice")) }}
  {{- fail (printf "tenure-lib: tenure.routing.mode is gate, label or endpointSlice, not %s" $v.routing.mode) }}
{{- end }}
{{- if and $v.waitForDrained (ne (len $c.elections) 1) }}
  {{- fail "tenure-lib: tenure.waitForDrained waits for one election, and tenure.config.elections has several" }}
{{- end }}
{{- if and $v.routing.election (not (has $v.routing.election $c.elections)) }}
  {{- fail (printf "tenure-lib: tenure.routing.election %s is none of tenure.config.elections" $v.routing.election) }}
{{- end }}
{{- end }}

{{/* The port of the public listener. */}}
{{- define "tenure-lib.port" -}}
{{- regexFind "[0-9]+$" .config.http.public | required "tenure-lib: tenure.config.http.public must end with a port, as 0.0.0.0:4790 does" }}
{{- end }}

{{/* The name of the leader's Service. Argument: the root of the user's chart. */}}
{{- define "tenure-lib.leaderServiceName" -}}
{{- $v := include "tenure-lib.values" . | fromYaml }}
{{- default (printf "%s-leader" (printf "%s-%s" .Release.Name .Chart.Name | trunc 56 | trimSuffix "-")) $v.routing.service }}
{{- end }}

{{/* The daemon's configuration as lines `NAME: value`: {etcd: {prefix: /a}} is TENURE_ETCD__PREFIX: "/a". */}}
{{- define "tenure-lib.flat" -}}
{{- range $key, $value := .map }}
{{- $name := printf "%s%s" $.prefix (upper $key) }}
{{- if kindIs "map" $value }}
{{- include "tenure-lib.flat" (dict "prefix" (printf "%s__" $name) "map" $value) }}
{{- else if kindIs "slice" $value }}
{{ $name }}: {{ join "," $value | quote }}
{{- else if kindIs "float64" $value }}
{{ $name }}: {{ $value | int64 | toString | quote }}
{{- else if not (kindIs "invalid" $value) }}
{{ $name }}: {{ $value | toString | quote }}
{{- end }}
{{- end }}
{{- end }}
