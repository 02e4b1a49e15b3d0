{{/* The daemon's configuration: (dict "root" $ "revision" N). Without a revision it is what the pods' checksum covers, so that
     an upgrade that changes nothing restarts nothing. */}}
{{- define "tenure.config" -}}
{{- $v := .root.Values -}}
{{- $elections := list -}}
{{- range $v.elections -}}
{{- $one := ternary . (dict "name" .) (kindIs "map" .) -}}
{{- /* 0 is a priority too, which merge would take for none. */}}
{{- if and $v.preferNewestRevision $.revision (not $one.observe) (not (hasKey $one "priority")) -}}
{{- $one = merge (dict "priority" (int $.revision)) $one -}}
{{- end -}}
{{- $elections = append $elections $one -}}
{{- end -}}

{{- $etcd := dict "endpoints" $v.etcd.endpoints "prefix" $v.etcd.prefix "connect_timeout" $v.etcd.connectTimeout "request_timeout" $v.etcd.requestTimeout -}}
{{- with $v.etcd.clusterId -}}{{- $_ := set $etcd "cluster_id" . -}}{{- end -}}
{{- with $v.etcd.username -}}
{{- $_ := set $etcd "username" . -}}
{{- $_ := set $etcd "password_file" "/secrets/etcd-password/password" -}}
{{- end -}}
{{- if $v.etcd.tls.existingSecret -}}
{{- $tls := dict -}}
{{- range $key, $file := dict "caKey" "ca" "certKey" "cert" "keyKey" "key" -}}
{{- if get $v.etcd.tls $key -}}
{{- $_ := set $tls (printf "%s_file" $file) (printf "/secrets/etcd-tls/%s.pem" $file) -}}
{{- end -}}
{{- end -}}
{{- with $v.etcd.tls.serverName -}}{{- $_ := set $tls "server_name" . -}}{{- end -}}
{{- $_ := set $etcd "tls" $tls -}}
{{- end -}}

{{- $any := ternary "[::]" "0.0.0.0" $v.http.ipv6 -}}
{{- $own := ternary "[${POD_IP}]" "${POD_IP}" $v.http.ipv6 -}}
{{- $http := dict
    "public" (printf "%s:4790" $any)
    "control" "unix:/run/tenure/control.sock"
    "request_timeout" $v.http.requestTimeout
    "max_connections" (int $v.http.maxConnections)
    "advertise_url" (default (printf "%s://%s:4790" (include "tenure.scheme" .root) $own) $v.http.advertiseUrl) -}}
{{- if $v.control.tcp.enabled -}}
{{- $_ := set $http "control" (list "unix:/run/tenure/control.sock" (printf "%s:%d" $any (int $v.control.tcp.port))) -}}
{{- $_ := set $http "admin_token_file" "/secrets/admin-token/token" -}}
{{- end -}}
{{- if $v.http.tls.existingSecret -}}
{{- $tls := dict "cert_file" "/secrets/http-tls/cert.pem" "key_file" "/secrets/http-tls/key.pem" -}}
{{- if $v.http.tls.clientCaKey -}}{{- $_ := set $tls "client_ca_file" "/secrets/http-tls/client-ca.pem" -}}{{- end -}}
{{- $_ := set $http "tls" $tls -}}
{{- end -}}

{{- $config := dict
    "id" "${POD_NAME}"
    "elections" $elections
    "etcd" $etcd
    "session" (dict "ttl" $v.session.ttl "drift" $v.session.drift "slack" $v.session.slack "promise" $v.session.promise "vacancy_grace" $v.session.vacancyGrace "drain_timeout" $v.session.drainTimeout)
    "http" $http
    "readiness" (dict "strict" $v.readiness.strict)
    "startup" (dict "wait_for_etcd" $v.startup.waitForEtcd)
    "history_limit" (int $v.historyLimit)
    "generation_source" $v.generationSource
    "log" (dict "format" $v.log.format "level" $v.log.level) -}}
{{- if eq $v.routing.mode "label" -}}
{{- $_ := set $config "kubernetes" (dict "route" "label" "label" $v.routing.label "pod" "${POD_NAME}" "namespace" "${POD_NAMESPACE}") -}}
{{- else if eq $v.routing.mode "endpointSlice" -}}
{{- $_ := set $config "kubernetes" (dict "route" "endpoint_slice" "service" (include "tenure.leaderService" .root) "pod" "${POD_NAME}" "namespace" "${POD_NAMESPACE}" "address" "${POD_IP}") -}}
{{- end -}}
{{- if and $config.kubernetes $v.routing.election -}}{{- $_ := set $config.kubernetes "election" $v.routing.election -}}{{- end -}}
{{- mergeOverwrite $config (deepCopy ($v.extraConfig | default dict)) | toYaml -}}
{{- end -}}

{{/* What a container that runs the daemon's image needs to read that configuration. */}}
{{- define "tenure.env" -}}
{{- range $name, $field := dict "POD_NAME" "metadata.name" "POD_NAMESPACE" "metadata.namespace" "POD_IP" "status.podIP" }}
- name: {{ $name }}
  valueFrom:
    fieldRef:
      fieldPath: {{ $field }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "tenure.volumeMounts" -}}
- {name: config, mountPath: /etc/tenure, readOnly: true}
- {name: run, mountPath: /run/tenure}
{{- range include "tenure.secrets" . | fromYaml }}
- {name: {{ .volume }}, mountPath: /secrets/{{ .volume }}, readOnly: true}
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "tenure.volumes" -}}
- name: config
  configMap:
    name: {{ include "tenure.fullname" . }}
- name: run
  emptyDir:
    medium: Memory
    sizeLimit: 1Mi
{{- range include "tenure.secrets" . | fromYaml }}
- name: {{ .volume }}
  secret:
    secretName: {{ .secret }}
    defaultMode: 0440
    items:
      {{- range $path, $key := .items }}
      - {key: {{ $key | quote }}, path: {{ $path }}}
      {{- end }}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The Secrets in use, and of each only the keys in use: volume, secret, items (path → key). */}}
{{- define "tenure.secrets" -}}
{{- $all := dict -}}
{{- $etcd := .Values.etcd -}}
{{- if $etcd.tls.existingSecret -}}
{{- $items := dict -}}
{{- with $etcd.tls.caKey -}}{{- $_ := set $items "ca.pem" . -}}{{- end -}}
{{- with $etcd.tls.certKey -}}{{- $_ := set $items "cert.pem" . -}}{{- end -}}
{{- with $etcd.tls.keyKey -}}{{- $_ := set $items "key.pem" . -}}{{- end -}}
{{- $_ := set $all "a" (dict "volume" "etcd-tls" "secret" $etcd.tls.existingSecret "items" $items) -}}
{{- end -}}
{{- if $etcd.username -}}
{{- $_ := set $all "b" (dict "volume" "etcd-password" "secret" $etcd.passwordSecret.name "items" (dict "password" $etcd.passwordSecret.key)) -}}
{{- end -}}
{{- $tls := .Values.http.tls -}}
{{- if $tls.existingSecret -}}
{{- $items := dict "cert.pem" $tls.certKey "key.pem" $tls.keyKey -}}
{{- with $tls.clientCaKey -}}{{- $_ := set $items "client-ca.pem" . -}}{{- end -}}
{{- $_ := set $all "c" (dict "volume" "http-tls" "secret" $tls.existingSecret "items" $items) -}}
{{- end -}}
{{- if .Values.control.tcp.enabled -}}
{{- $admin := .Values.control.tcp.adminTokenSecret -}}
{{- $_ := set $all "d" (dict "volume" "admin-token" "secret" $admin.name "items" (dict "token" $admin.key)) -}}
{{- end -}}
{{- toYaml $all -}}
{{- end -}}
