{{/* What the schema cannot say: how values relate, the daemon's own relations too, or its pods would start for nothing. All
     complaints at once. What extraConfig and the environment say is left to the daemon. */}}
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
{{- $http := false -}}
{{- range $v.etcd.endpoints -}}
{{- if hasPrefix "https://" . -}}{{- $https = true -}}{{- else -}}{{- $http = true -}}{{- end -}}
{{- if gt (regexFind "[0-9]+$" . | int) 65535 -}}
{{- $bad = append $bad (printf "etcd.endpoints: %s: ports end at 65535" .) -}}
{{- end -}}
{{- end -}}
{{- if and $http $https -}}
{{- $bad = append $bad "etcd.endpoints: http or https, the same for every member" -}}
{{- end -}}
{{- if and $http (not $https) $v.etcd.tls.existingSecret -}}
{{- $bad = append $bad "etcd.tls: existingSecret is set, but the endpoints are http" -}}
{{- end -}}
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

{{- /* The guard, as the daemon reckons it: ttl x (1 - drift) - slack. */}}
{{- $ttl := include "tenure.millis" $v.session.ttl | int64 -}}
{{- $promise := include "tenure.millis" $v.session.promise | int64 -}}
{{- $ppm := round (mulf (trimSuffix "%" $v.session.drift | float64) 10000) 0 | int64 -}}
{{- $micros := sub (div (mul $ttl (sub 1000000 $ppm)) 1000) (mul 1000 (include "tenure.millis" $v.session.slack | int64)) -}}
{{- if ge (mul $ttl 600) $micros -}}
{{- $bad = append $bad "session.slack: leaves no room for two lost renewals: ttl x (1 - drift) - slack has to be more than 3/5 of ttl" -}}
{{- else if gt (mul 1000 $promise) $micros -}}
{{- $bad = append $bad (printf "session.promise: at most ttl x (1 - drift) - slack: %dms" (div $micros 1000)) -}}
{{- end -}}
{{- /* A grace that keeps promises, or one leader as well; on a clock that may run fast by the drift. */}}
{{- $grace := include "tenure.millis" $v.session.vacancyGrace | int64 -}}
{{- $rate := sub 1000000 $ppm -}}
{{- $forPromises := div (add (mul 1000000 (add $promise (div (mul 2 $ttl) 5))) (sub $rate 1)) $rate -}}
{{- $forOneLeader := div (add (mul 1000000 $ttl) (sub $rate 1)) $rate -}}
{{- if and $grace (or (lt $grace (min $forPromises $forOneLeader)) (gt $grace (mul 2 $ttl))) -}}
{{- $bad = append $bad (printf "session.vacancyGrace: 0s, or from %dms to %dms: it keeps promises from (promise + 2/5 ttl) / (1 - drift) on, and one leader as well from ttl / (1 - drift) on" (min $forPromises $forOneLeader) (mul 2 $ttl)) -}}
{{- end -}}
{{- if gt (include "tenure.millis" $v.session.drainTimeout | int64) 86400000 -}}
{{- $bad = append $bad "session.drainTimeout: at most 24h" -}}
{{- end -}}

{{- /* The daemon's own deadline for a stop is promise + 3 x requestTimeout: an etcd that does not answer uses it up. */}}
{{- $stop := add $promise (mul 3 (include "tenure.millis" $v.etcd.requestTimeout | int64)) -}}
{{- $least := add $v.preStopSleepSeconds (div (add $stop 999) 1000) 2 -}}
{{- if lt (int64 $v.terminationGracePeriodSeconds) $least -}}
{{- $bad = append $bad (printf "terminationGracePeriodSeconds: at least %d: preStopSleepSeconds + session.promise + 3 x etcd.requestTimeout + 2 s" $least) -}}
{{- end -}}
{{- $budget := $v.podDisruptionBudget -}}
{{- if and $budget.enabled (kindIs "invalid" $budget.minAvailable) (kindIs "invalid" $budget.maxUnavailable) -}}
{{- $bad = append $bad "podDisruptionBudget: minAvailable or maxUnavailable" -}}
{{- end -}}

{{- if and (eq $v.routing.mode "endpointSlice") (not $v.routing.service.create) (not $v.routing.service.name) -}}
{{- $bad = append $bad "routing: mode endpointSlice needs a Service: routing.service.create, or the name of one without a selector" -}}
{{- end -}}
{{- $taken := list -}}
{{- if $v.service.enabled -}}{{- $taken = append $taken (include "tenure.fullname" .) -}}{{- end -}}
{{- if $v.control.tcp.service.enabled -}}{{- $taken = append $taken (printf "%s-control" (include "tenure.fullname" .)) -}}{{- end -}}
{{- if has $v.routing.service.name $taken -}}
{{- $bad = append $bad "routing.service.name: it is the name of a Service on all candidates" -}}
{{- end -}}
{{- $names := list -}}
{{- $observed := list -}}
{{- range $v.elections -}}
{{- $one := ternary . (dict "name" .) (kindIs "map" .) -}}
{{- if has $one.name $names -}}
{{- $bad = append $bad (printf "elections: %s is listed twice" $one.name) -}}
{{- end -}}
{{- if and $one.observe $one.priority -}}
{{- $bad = append $bad (printf "elections: %s: who observes never queues, so a priority means nothing" $one.name) -}}
{{- end -}}
{{- $names = append $names $one.name -}}
{{- if $one.observe -}}{{- $observed = append $observed $one.name -}}{{- end -}}
{{- end -}}
{{- $routed := $v.routing.election | default (first (append $names "")) -}}
{{- if not (has $routed (append $names "")) -}}
{{- $bad = append $bad (printf "routing.election: %s is not one of elections" $routed) -}}
{{- end -}}
{{- if and (include "tenure.routes" .) (has $routed $observed) -}}
{{- $bad = append $bad (printf "routing.election: %s is only observed, so no pod of these ever leads it" $routed) -}}
{{- end -}}
{{- if and (include "tenure.routes" .) $routed (not (regexMatch "^.{0,62}[A-Za-z0-9]$" $routed)) -}}
{{- $bad = append $bad (printf "routing.election: %s becomes a label: at most 63 characters, a letter or digit last" $routed) -}}
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
