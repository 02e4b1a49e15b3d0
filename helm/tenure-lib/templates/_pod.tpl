{{/*
The sidecar, as an item of a list of containers.

    initContainers:
      {{- include "tenure-lib.sidecar" (dict "root" $) | nindent 8 }}

It goes first of all initContainers: then it starts first and stops last. Clusters before 1.29 know no native sidecars:
there say (dict "root" $ "mode" "classic"), under `containers`.
*/}}
{{- define "tenure-lib.sidecar" -}}
{{- include "tenure-lib.takes" (dict "of" "tenure-lib.sidecar" "given" . "takes" (list "mode")) }}
{{- $root := default . .root }}
{{- $mode := default "native" .mode }}
{{- $v := include "tenure-lib.effective" . | fromYaml }}
{{- $port := int $v.http.port }}
{{- if not (has $mode (list "native" "classic")) }}
  {{- fail (printf "tenure-lib: the mode of tenure-lib.sidecar is native or classic, not %s" $mode) }}
{{- end }}
{{- if and (eq $mode "native") (semverCompare "<1.29.0-0" $root.Capabilities.KubeVersion.Version) }}
  {{- fail (printf "tenure-lib: Kubernetes %s has no native sidecars (1.29 and newer have): include tenure-lib.sidecar under containers, with mode classic" $root.Capabilities.KubeVersion.Version) }}
{{- end }}
{{- if and (eq $mode "native") $v.waitForDrained }}
  {{- fail "tenure-lib: tenure.waitForDrained is for mode classic: a native sidecar hands over when the application has exited anyway" }}
{{- end }}
{{- $downward := dict "POD_IP" "status.podIP" "TENURE_ID" "metadata.name" }}
{{- if ne $v.routing.mode "gate" }}
  {{- /* The host name is another with hostNetwork, hostname or setHostnameAsFQDN. */}}
  {{- $_ := set $downward "TENURE_KUBERNETES__POD" "metadata.name" }}
{{- end }}
{{- $environment := include "tenure-lib.environment" (dict "v" $v "service" (include "tenure-lib.leaderServiceName" .)) | fromYaml }}
{{- range $v.extraEnv }}
  {{- if or (hasKey $downward .name) (hasKey $environment .name) }}
    {{- fail (printf "tenure-lib: tenure.extraEnv cannot set %s: the library sets it" .name) }}
  {{- end }}
{{- end -}}
- name: tenure
  image: {{ include "tenure-lib.image" $v }}
  imagePullPolicy: {{ $v.image.pullPolicy }}
  {{- if eq $mode "native" }}
  restartPolicy: Always
  {{- end }}
  args: [run]
  env:
    {{- range $name, $field := $downward }}
    - name: {{ $name }}
      valueFrom: {fieldRef: {fieldPath: {{ $field }}}}
    {{- end }}
    {{- range $name, $value := $environment }}
    - name: {{ $name }}
      value: {{ $value | quote }}
    {{- end }}
    {{- with $v.extraEnv }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  ports:
    # Services must name the port by its number: they cannot resolve the names of a native sidecar's ports before 1.32.
    - name: tenure
      containerPort: {{ $port }}
  # In a native sidecar the application starts only after it.
  startupProbe:
    httpGet: {path: /startupz, port: {{ $port }}}
    periodSeconds: 1
    failureThreshold: 60
  livenessProbe:
    httpGet: {path: /livez, port: {{ $port }}}
    periodSeconds: 10
    timeoutSeconds: 2
    failureThreshold: 3
  {{- if $v.readinessProbe }}
  # Was in each queue once, does not drain. Never leadership: a rolling update would wait for a leader that waits for it.
  readinessProbe:
    httpGet: {path: /readyz, port: {{ $port }}}
    periodSeconds: 5
    timeoutSeconds: 2
    failureThreshold: 2
  {{- end }}
  lifecycle:
    preStop:
      {{- if and (eq $mode "classic") $v.waitForDrained }}
      # SIGTERM would come at once. Until the application has said `drained` and another leads, it does not.
      exec: {command: [/tenure, wait, --until, follower, --timeout, {{ $v.waitForDrained }}]}
      {{- else }}
      # The moment the pod is told to stop: no token any more, /leader and the gate closed, the lease kept. SIGTERM hands over.
      exec: {command: [/tenure, drain]}
      {{- end }}
  terminationMessagePolicy: FallbackToLogsOnError
  resources:
    {{- toYaml $v.resources | nindent 4 }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    allowPrivilegeEscalation: false
    readOnlyRootFilesystem: true
    capabilities: {drop: [ALL]}
    seccompProfile: {type: RuntimeDefault}
  volumeMounts:
    - name: tenure-run
      mountPath: /run/tenure
    {{- if $v.etcd.tls.existingSecret }}
    - name: tenure-etcd-tls
      mountPath: /etc/tenure/etcd-tls
      readOnly: true
    {{- end }}
    {{- if $v.etcd.username }}
    - name: tenure-etcd-auth
      mountPath: /etc/tenure/etcd-auth
      readOnly: true
    {{- end }}
    {{- if ne $v.routing.mode "gate" }}
    - name: tenure-api-access
      mountPath: /var/run/secrets/kubernetes.io/serviceaccount
      readOnly: true
    {{- end }}
    {{- with $v.extraVolumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}

{{- define "tenure-lib.image" -}}
{{- printf "%s/%s:%s" .image.registry .image.repository (default "0.1.0" .image.tag) | trimPrefix "/" }}
{{- with .image.digest }}@{{ . }}{{ end }}
{{- end }}

{{/* The daemon's environment, as lines `NAME: value`. */}}
{{- define "tenure-lib.environment" -}}
{{- include "tenure-lib.flat" (dict "prefix" "TENURE_" "map" (include "tenure-lib.config" . | fromYaml)) }}
{{- end }}

{{/* What the sidecar needs of the pod's volumes. */}}
{{- define "tenure-lib.volumes" -}}
{{- include "tenure-lib.takes" (dict "of" "tenure-lib.volumes" "given" . "takes" list) }}
{{- $v := include "tenure-lib.effective" . | fromYaml -}}
- name: tenure-run
  # In memory: it holds no more than a socket, and an autoscaler does not take it for data that a node must keep.
  emptyDir: {medium: Memory, sizeLimit: 1Mi}
{{- with $v.etcd.tls }}
{{- if .existingSecret }}
- name: tenure-etcd-tls
  secret:
    secretName: {{ .existingSecret }}
    # Read by the sidecar's user, whatever the pod's fsGroup is; no other container mounts it.
    defaultMode: 0444
    items:
      - {key: {{ .caKey | quote }}, path: ca.crt}
      {{- if .certKey }}
      - {key: {{ .certKey | quote }}, path: tls.crt}
      - {key: {{ .keyKey | quote }}, path: tls.key}
      {{- end }}
{{- end }}
{{- end }}
{{- if $v.etcd.username }}
- name: tenure-etcd-auth
  secret:
    secretName: {{ $v.etcd.passwordSecret.name }}
    defaultMode: 0444
    items:
      - {key: {{ $v.etcd.passwordSecret.key | quote }}, path: password}
{{- end }}
{{- if ne $v.routing.mode "gate" }}
# The sidecar alone may speak to the API server; the application gets no token by this.
- name: tenure-api-access
  projected:
    defaultMode: 0444
    sources:
      - serviceAccountToken: {path: token, expirationSeconds: 3607}
      - configMap: {name: kube-root-ca.crt, items: [{key: ca.crt, path: ca.crt}]}
      - downwardAPI: {items: [{path: namespace, fieldRef: {fieldPath: metadata.namespace}}]}
{{- end }}
{{- end }}

{{/* The application's mount of the control socket. To connect needs no right to write in the directory. */}}
{{- define "tenure-lib.appVolumeMounts" -}}
- name: tenure-run
  mountPath: /run/tenure
  readOnly: true
{{- end }}

{{/* The pod's securityContext, as far as the socket needs it: it is open to the sidecar's group. */}}
{{- define "tenure-lib.podSecurityContext" -}}
supplementalGroups: [65532]
{{- end }}

{{/* For the pods' annotations: the volume of the socket keeps no autoscaler from moving the pod. */}}
{{- define "tenure-lib.podAnnotations" -}}
cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes: tenure-run
{{- end }}
