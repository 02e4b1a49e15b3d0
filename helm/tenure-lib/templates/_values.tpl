{{/*
Every value with its default. A user's chart sets them under `tenure:` in its values.yaml; what it leaves out is here.
*/}}
{{- define "tenure-lib.defaults" -}}
# The leaderships to hold: names, the first is the one that /leader and /gate speak for. Required. An election's priority
# and observe need the daemon's file, which a sidecar has not.
elections: []
etcd:
  # All members: http://host:port or https://host:port. Required.
  endpoints: []
  # Everything of ours lies below this key. Candidates that compete must agree on it. Default: /tenure.
  prefix: ""
  # Name for password authentication, and the Secret with its password: both or none.
  username: ""
  passwordSecret:
    name: ""
    key: password
  tls:
    # A Secret with the PEM files for https endpoints. Certificate and key of our own: for mutual TLS, both or none.
    existingSecret: ""
    caKey: ca.crt
    certKey: ""
    keyKey: ""
    # The name to expect in etcd's certificate, where it is not the host of the endpoint.
    serverName: ""
session:
  # How long etcd keeps the leadership of a candidate that has died; the same for all candidates of an election.
  # Default: 10s.
  ttl: ""
  # How much the clocks of different machines may differ in rate. Default: 1%.
  drift: ""
  # The leader stops this much earlier besides. Default: 250ms.
  slack: ""
  # The longest validity that one token answer promises. A hand-over waits until the last promise has run out. Default: 1s.
  promise: ""
  # How long a candidate waits after a vacancy that no hand-over announced. Default: 0s.
  vacancyGrace: ""
  # After this long a drain hands over by itself, whether the application has exited or not. Default: 10m.
  drainTimeout: ""
http:
  # The sidecar's read-only port: probes, metrics, who leads, gate. The pod's containers share their ports.
  port: 4790
  # Listen on all IPv6 addresses (which takes IPv4 as well where the node does both), and publish the pod's IPv6 address.
  ipv6: false
  # Where others reach this pod; Kubernetes puts its address in for $(POD_IP), and with ipv6 it gets its brackets here. Name
  # the application's port, if redirects shall lead there. Default: the pod's address and the port above.
  advertiseUrl: ""
# More of the daemon's configuration, in its own words (`tenure config example`), given to it as environment.
extraConfig: {}
# How Services find the leader. gate: they need not, since your application or proxy asks the gate. label: the daemon labels
# the leader's pod, and the Service heeds the pod's readiness as any does. endpointSlice: the leader writes the EndpointSlice
# of a Service without a selector, and writes itself ready whether its pod is or not.
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
# It keeps under 10 MiB; the limit leaves room for many connections. Not merged: what is set replaces all of it.
resources:
  requests:
    cpu: 10m
    memory: 16Mi
  limits:
    memory: 64Mi
# Whether the pod is ready only while its sidecar is: has been in each queue once, does not drain. Never: whether it leads.
readinessProbe: true
# Mode classic only: for so long, such as 25s, a stopping pod leads on, until its application says `drained`. Needs an
# application that does, one election, and a terminationGracePeriodSeconds that is longer.
waitForDrained: ""
# More variables, as in any container. None that the library sets.
extraEnv: []
# Mounts of volumes that the pod has, for state_dir and audit.file of extraConfig: the root file system is read-only. The
# sidecar's user is 65532; the pod's fsGroup is what lets it write there.
extraVolumeMounts: []
podMonitor:
  # Default: <release>-<chart>-tenure.
  name: ""
  # The operator selects by labels.
  labels: {}
  interval: ""
{{- end }}

{{/*
Every template takes the root of the user's chart or, to say more, a mapping with it: (dict "root" . "values" VALUES …). What
is in `values` goes over .Values.tenure, for a workload with a configuration of its own. Argument: of, given, takes.
*/}}
{{- define "tenure-lib.takes" -}}
{{- if not (hasKey .given "Values") }}
  {{- $takes := concat (list "root" "values") .takes }}
  {{- range $key, $_ := .given }}
    {{- if not (has $key $takes) }}
      {{- fail (printf "tenure-lib: %s takes no %s; it takes %s" $.of $key (join ", " $takes)) }}
    {{- end }}
  {{- end }}
  {{- if not (hasKey (default dict .given.root) "Values") }}
    {{- fail (printf "tenure-lib: %s needs the root of your chart: (dict \"root\" $ …)" .of) }}
  {{- end }}
{{- end }}
{{- end }}

{{/*
The values in effect, as YAML, for what stands beside the sidecar.

    {{ (include "tenure-lib.values" $ | fromYaml).http.port }}
*/}}
{{- define "tenure-lib.values" -}}
{{- include "tenure-lib.takes" (dict "of" "tenure-lib.values" "given" . "takes" list) }}
{{- include "tenure-lib.effective" . }}
{{- end }}

{{/* The same for the other templates, which take more. */}}
{{- define "tenure-lib.effective" -}}
{{- $root := default . .root }}
{{- if hasKey (default dict $root.Subcharts) "tenure" }}
  {{- fail "tenure-lib: the chart `tenure` takes its values from the same place, .Values.tenure: give that dependency an alias, such as `alias: candidates`" }}
{{- end }}
{{- $defaults := include "tenure-lib.defaults" . | fromYaml }}
{{- $v := deepCopy $defaults }}
{{- range list (list "tenure" $root.Values.tenure) (list "values" (get (ternary dict . (hasKey . "Values")) "values")) }}
  {{- $path := first . }}
  {{- $given := default dict (last .) }}
  {{- if not (kindIs "map" $given) }}
    {{- fail (printf "tenure-lib: %s must be a mapping" $path) }}
  {{- end }}
  {{- $given = include "tenure-lib.withoutNulls" $given | fromYaml }}
  {{- include "tenure-lib.known" (dict "path" $path "given" $given "defaults" $defaults) }}
  {{- /* A request that is set and a limit that is not would contradict each other. */}}
  {{- if hasKey $given "resources" }}{{- $_ := set $v "resources" dict }}{{- end }}
  {{- $v = mergeOverwrite $v $given }}
{{- end }}
{{- include "tenure-lib.validate" $v }}
{{- toYaml $v }}
{{- end }}

{{/* A null is what was not said. */}}
{{- define "tenure-lib.withoutNulls" -}}
{{- $said := dict }}
{{- range $key, $value := . }}
  {{- if kindIs "map" $value }}
    {{- $_ := set $said $key (include "tenure-lib.withoutNulls" $value | fromYaml) }}
  {{- else if not (kindIs "invalid" $value) }}
    {{- $_ := set $said $key $value }}
  {{- end }}
{{- end }}
{{- toYaml $said }}
{{- end }}

{{/* A key that the defaults do not have is a typo. An empty mapping takes any: what is in it is the daemon's or Kubernetes' to judge. */}}
{{- define "tenure-lib.known" -}}
{{- range $key, $value := .given }}
  {{- $path := printf "%s.%s" $.path $key }}
  {{- if not (hasKey $.defaults $key) }}
    {{- $more := ternary ", and extraConfig takes every key of `tenure config example`" "" (has $.path (list "tenure" "values")) }}
    {{- fail (printf "tenure-lib: there is no value %s; there are: %s%s" $path (keys $.defaults | sortAlpha | join ", ") $more) }}
  {{- end }}
  {{- $default := get $.defaults $key }}
  {{- if kindIs "map" $default }}
    {{- if not (kindIs "map" $value) }}
      {{- fail (printf "tenure-lib: %s must be a mapping" $path) }}
    {{- end }}
    {{- if and $default (ne $key "resources") }}
      {{- include "tenure-lib.known" (dict "path" $path "given" $value "defaults" $default) }}
    {{- end }}
  {{- end }}
{{- end }}
{{- end }}

{{/* What would start and be wrong, or not start, is refused here, with what to do. */}}
{{- define "tenure-lib.validate" -}}
{{- $v := . }}
{{- range $key, $list := dict "elections" $v.elections "etcd.endpoints" $v.etcd.endpoints }}
  {{- if not (or (empty $list) (kindIs "slice" $list)) }}
    {{- fail (printf "tenure-lib: tenure.%s must be a list" $key) }}
  {{- end }}
{{- end }}
{{- if not $v.elections }}
  {{- fail "tenure-lib: tenure.elections names the leaderships to hold, and is empty: say e.g. [orders]" }}
{{- end }}
{{- range $v.elections }}
  {{- if not (kindIs "string" .) }}
    {{- fail "tenure-lib: tenure.elections takes names only: priority and observe of an election need the daemon's file, which a sidecar has not" }}
  {{- end }}
{{- end }}
{{- if not $v.etcd.endpoints }}
  {{- fail "tenure-lib: tenure.etcd.endpoints names etcd's members, and is empty: say e.g. [https://etcd-0.etcd:2379, https://etcd-1.etcd:2379, https://etcd-2.etcd:2379]" }}
{{- end }}
{{- range $v.etcd.endpoints }}
  {{- if and (hasPrefix "https:" .) (not $v.etcd.tls.existingSecret) }}
    {{- fail (printf "tenure-lib: %s needs to know whom to trust: tenure.etcd.tls.existingSecret names a Secret with ca.crt" .) }}
  {{- end }}
{{- end }}
{{- if ne (empty $v.etcd.username) (empty $v.etcd.passwordSecret.name) }}
  {{- fail "tenure-lib: tenure.etcd.username and tenure.etcd.passwordSecret.name (a Secret with the password) go together: both or none" }}
{{- end }}
{{- if ne (empty $v.etcd.tls.certKey) (empty $v.etcd.tls.keyKey) }}
  {{- fail "tenure-lib: tenure.etcd.tls.certKey and tenure.etcd.tls.keyKey go together: both or none" }}
{{- end }}
{{- if not (and (regexMatch "^[0-9]+$" (toString $v.http.port)) (le 1 (int $v.http.port)) (le (int $v.http.port) 65535)) }}
  {{- fail (printf "tenure-lib: tenure.http.port is a number from 1 to 65535, not %v" $v.http.port) }}
{{- end }}
{{- /* What has a value of its own, or is fixed by what the sidecar mounts, asks and serves. */}}
{{- $own := dict
    "id" "is the pod's name"
    "elections" "is tenure.elections"
    "kubernetes" "follows tenure.routing"
    "etcd.endpoints" "is tenure.etcd.endpoints"
    "etcd.prefix" "is tenure.etcd.prefix"
    "etcd.username" "is tenure.etcd.username"
    "etcd.password_file" "follows tenure.etcd.passwordSecret"
    "etcd.tls" "follows tenure.etcd.tls"
    "session" "is tenure.session"
    "http.public" "follows tenure.http.port and tenure.http.ipv6"
    "http.advertise_url" "is tenure.http.advertiseUrl"
    "http.control" "is the socket that the application finds at /run/tenure/control.sock"
    "http.tls" "is not for a sidecar: its probes and its application ask by plain HTTP within the pod" }}
{{- range $key, $why := $own }}
  {{- $path := splitList "." $key }}
  {{- $in := $v.extraConfig }}
  {{- range initial $path }}
    {{- $in = default dict (get $in .) }}
  {{- end }}
  {{- if hasKey $in (last $path) }}
    {{- fail (printf "tenure-lib: tenure.extraConfig.%s cannot be set: it %s" $key $why) }}
  {{- end }}
{{- end }}
{{- /* The root file system is read-only, and what lies in the socket's volume goes with the pod. */}}
{{- $files := dict }}
{{- with $v.extraConfig.state_dir }}{{- $_ := set $files "state_dir" (printf "%s/" (clean (toString .))) }}{{- end }}
{{- with $v.extraConfig.audit }}{{- with .file }}{{- $_ := set $files "audit.file" (clean (toString .)) }}{{- end }}{{- end }}
{{- range $key, $file := $files }}
  {{- $covered := false }}
  {{- range $v.extraVolumeMounts }}
    {{- if and (hasPrefix (printf "%s/" (clean (toString .mountPath))) $file) (not .readOnly) }}{{- $covered = true }}{{- end }}
  {{- end }}
  {{- if not $covered }}
    {{- fail (printf "tenure-lib: tenure.extraConfig.%s needs a mount to write to: tenure.extraVolumeMounts has none for %s" $key (trimSuffix "/" $file)) }}
  {{- end }}
{{- end }}
{{- if not (has $v.routing.mode (list "gate" "label" "endpointSlice")) }}
  {{- fail (printf "tenure-lib: tenure.routing.mode is gate, label or endpointSlice, not %s" $v.routing.mode) }}
{{- end }}
{{- if and $v.waitForDrained (not (and (kindIs "string" $v.waitForDrained) (regexMatch "^[0-9]+(ms|s|m|h)$" $v.waitForDrained))) }}
  {{- fail (printf "tenure-lib: tenure.waitForDrained is a duration with its unit, such as 25s, not %v" $v.waitForDrained) }}
{{- end }}
{{- if and $v.waitForDrained (ne (len $v.elections) 1) }}
  {{- fail "tenure-lib: tenure.waitForDrained waits for one election, and tenure.elections has several" }}
{{- end }}
{{- if and $v.routing.election (not (has $v.routing.election $v.elections)) }}
  {{- fail (printf "tenure-lib: tenure.routing.election %s is none of tenure.elections" $v.routing.election) }}
{{- end }}
{{- end }}

{{/* The name of the leader's Service. */}}
{{- define "tenure-lib.leaderServiceName" -}}
{{- $root := default . .root }}
{{- $v := include "tenure-lib.effective" . | fromYaml }}
{{- default (printf "%s-leader" (printf "%s-%s" $root.Release.Name $root.Chart.Name | trunc 56 | trimSuffix "-")) $v.routing.service }}
{{- end }}

{{/* The daemon's configuration, in its own words: what the values say, and extraConfig beside it. Argument: v, service. */}}
{{- define "tenure-lib.config" -}}
{{- $v := .v }}
{{- $etcd := dict "endpoints" $v.etcd.endpoints }}
{{- with $v.etcd.prefix }}{{- $_ := set $etcd "prefix" . }}{{- end }}
{{- with $v.etcd.username }}
  {{- $_ := set $etcd "username" . }}
  {{- $_ := set $etcd "password_file" "/etc/tenure/etcd-auth/password" }}
{{- end }}
{{- with $v.etcd.tls }}
  {{- if .existingSecret }}
    {{- $tls := dict "ca_file" "/etc/tenure/etcd-tls/ca.crt" }}
    {{- if .certKey }}
      {{- $_ := set $tls "cert_file" "/etc/tenure/etcd-tls/tls.crt" }}
      {{- $_ := set $tls "key_file" "/etc/tenure/etcd-tls/tls.key" }}
    {{- end }}
    {{- with .serverName }}{{- $_ := set $tls "server_name" . }}{{- end }}
    {{- $_ := set $etcd "tls" $tls }}
  {{- end }}
{{- end }}
{{- $session := dict }}
{{- range $key, $value := $v.session }}
  {{- /* A 0 is no default: the daemon judges it. */}}
  {{- if ne (toString $value) "" }}{{- $_ := set $session (snakecase $key) $value }}{{- end }}
{{- end }}
{{- $port := int $v.http.port }}
{{- $url := default (printf "http://$(POD_IP):%d" $port) $v.http.advertiseUrl }}
{{- if $v.http.ipv6 }}{{- $url = regexReplaceAllLiteral "://\\$\\(POD_IP\\)" $url "://[$(POD_IP)]" }}{{- end }}
{{- $http := dict
    "public" (printf "%s:%d" (ternary "[::]" "0.0.0.0" $v.http.ipv6) $port)
    "advertise_url" $url }}
{{- $config := dict "elections" $v.elections "etcd" $etcd "session" $session "http" $http }}
{{- if ne $v.routing.mode "gate" }}
  {{- $kubernetes := dict "route" (snakecase $v.routing.mode) }}
  {{- with $v.routing.election }}{{- $_ := set $kubernetes "election" . }}{{- end }}
  {{- if eq $v.routing.mode "endpointSlice" }}
    {{- $_ := set $kubernetes "service" .service }}
    {{- $_ := set $kubernetes "address" "$(POD_IP)" }}
  {{- end }}
  {{- $_ := set $config "kubernetes" $kubernetes }}
{{- end }}
{{- mergeOverwrite $config (deepCopy $v.extraConfig) | toYaml }}
{{- end }}

{{/* That configuration as lines `NAME: value`: {etcd: {prefix: /a}} is TENURE_ETCD__PREFIX: "/a". */}}
{{- define "tenure-lib.flat" -}}
{{- range $key, $value := .map }}
{{- $name := printf "%s%s" $.prefix (upper $key) }}
{{- if kindIs "map" $value }}
{{- include "tenure-lib.flat" (dict "prefix" (printf "%s__" $name) "map" $value) }}
{{- else if kindIs "slice" $value }}
{{ $name }}: {{ join "," $value | quote }}
{{- else if kindIs "float64" $value }}
{{ $name }}: {{ $value | toJson | quote }}
{{- else if not (kindIs "invalid" $value) }}
{{ $name }}: {{ $value | toString | quote }}
{{- end }}
{{- end }}
{{- end }}
