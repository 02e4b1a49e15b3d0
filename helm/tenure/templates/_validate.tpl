{{/* What the schema cannot say, or what must hold where the schema is skipped. All complaints at once. The daemon's own rules
     (ratios of timings, names) are left to the daemon, which reports them at start. */}}
{{- define "tenure.validate" -}}
{{- $v := .Values -}}
{{- $bad := list -}}

{{- if not $v.elections -}}
{{- $bad = append $bad "elections: name at least one leadership to hold, such as --set elections={orders}" -}}
{{- end -}}
{{- if not $v.etcd.endpoints -}}
{{- $bad = append $bad "etcd.endpoints: name etcd's members, such as --set etcd.endpoints={http://etcd.default.svc:2379}" -}}
{{- end -}}
{{- $https := false -}}
{{- range $v.etcd.endpoints -}}{{- if hasPrefix "https://" . -}}{{- $https = true -}}{{- end -}}{{- end -}}
{{- if and $https (not (and $v.etcd.tls.existingSecret $v.etcd.tls.caKey)) -}}
{{- $bad = append $bad "etcd.tls: https endpoints need existingSecret and caKey, since no authorities are built in" -}}
{{- end -}}
{{- if ne (empty $v.etcd.tls.certKey) (empty $v.etcd.tls.keyKey) -}}
{{- $bad = append $bad "etcd.tls: certKey and keyKey go together" -}}
{{- end -}}
{{- if ne (empty $v.etcd.username) (empty $v.etcd.passwordSecret.name) -}}
{{- $bad = append $bad "etcd: username and passwordSecret.name go together" -}}
{{- end -}}
{{- if and $v.http.tls.clientCaKey (not $v.http.tls.existingSecret) -}}
{{- $bad = append $bad "http.tls: clientCaKey needs existingSecret" -}}
{{- end -}}

{{- if and $v.control.tcp.enabled (not $v.control.tcp.adminTokenSecret.name) -}}
{{- $bad = append $bad "control.tcp: the verbs change leadership, so adminTokenSecret.name is needed" -}}
{{- end -}}
{{- if and $v.control.tcp.service.enabled (not $v.control.tcp.enabled) -}}
{{- $bad = append $bad "control.tcp.service: needs control.tcp.enabled" -}}
{{- end -}}
{{- if and $v.control.tcp.enabled (eq (int $v.control.tcp.port) 4790) -}}
{{- $bad = append $bad "control.tcp.port: 4790 is the public listener's" -}}
{{- end -}}

{{- if lt (int $v.replicaCount) 1 -}}
{{- $bad = append $bad "replicaCount: at least 1" -}}
{{- end -}}
{{- $least := add (int $v.preStopSleepSeconds) (int (include "tenure.seconds" $v.session.promise)) 5 -}}
{{- if lt (int $v.terminationGracePeriodSeconds) (int $least) -}}
{{- $bad = append $bad (printf "terminationGracePeriodSeconds: at least %d: preStopSleepSeconds, session.promise and 5 s for handing over" $least) -}}
{{- end -}}

{{- if and (eq $v.routing.mode "endpointSlice") (not $v.routing.service.create) (not $v.routing.service.name) -}}
{{- $bad = append $bad "routing: mode endpointSlice needs a Service: routing.service.create, or the name of one without a selector" -}}
{{- end -}}
{{- if and $v.routing.service.name (eq $v.routing.service.name (include "tenure.fullname" .)) $v.service.enabled -}}
{{- $bad = append $bad "routing.service.name: it is the name of the Service on all candidates" -}}
{{- end -}}
{{- $names := list -}}
{{- range $v.elections -}}{{- $names = append $names (ternary (get (ternary . dict (kindIs "map" .)) "name") . (kindIs "map" .)) -}}{{- end -}}
{{- if and $v.routing.election (not (has $v.routing.election $names)) -}}
{{- $bad = append $bad (printf "routing.election: %s is not one of elections" $v.routing.election) -}}
{{- end -}}

{{- if and $v.metrics.serviceMonitor.enabled $v.metrics.podMonitor.enabled -}}
{{- $bad = append $bad "metrics: serviceMonitor or podMonitor, or every sample comes twice" -}}
{{- end -}}
{{- if and $v.metrics.serviceMonitor.enabled (not $v.service.enabled) -}}
{{- $bad = append $bad "metrics.serviceMonitor: needs service.enabled; podMonitor does not" -}}
{{- end -}}

{{- if $bad -}}
{{- fail (printf "\n  * %s\n" (join "\n  * " $bad)) -}}
{{- end -}}
{{- end -}}
