{{/* Names. What other objects add to the full name still fits into the 63 characters of a Service. */}}
{{- define "tenure.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "tenure.fullname" -}}
{{- $name := include "tenure.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "tenure.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride -}}
{{- end -}}

{{- define "tenure.leaderService" -}}
{{- default (printf "%s-leader" (include "tenure.fullname" .)) .Values.routing.service.name -}}
{{- end -}}

{{- define "tenure.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "tenure.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* Labels. Selectors never change: they have no version. */}}
{{- define "tenure.selectorLabels" -}}
app.kubernetes.io/name: {{ include "tenure.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: candidate
{{- end -}}

{{/* metadata of an object: (dict "root" $ "name" … "component" … "labels" … "annotations" …), all but the first optional. */}}
{{- define "tenure.metadata" -}}
{{- $root := .root -}}
name: {{ .name | default (include "tenure.fullname" $root) }}
namespace: {{ include "tenure.namespace" $root }}
labels:
  {{- $own := dict
      "helm.sh/chart" (printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-")
      "app.kubernetes.io/name" (include "tenure.name" $root)
      "app.kubernetes.io/instance" $root.Release.Name
      "app.kubernetes.io/version" ($root.Chart.AppVersion | replace "+" "_")
      "app.kubernetes.io/managed-by" $root.Release.Service
      "app.kubernetes.io/component" (.component | default "candidate") }}
  {{- merge $own (deepCopy (.labels | default dict)) (deepCopy ($root.Values.commonLabels | default dict)) | toYaml | nindent 2 }}
{{- with .annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "tenure.image" -}}
{{- $image := .Values.image -}}
{{- with default $image.registry .Values.global.imageRegistry }}{{ . }}/{{ end -}}
{{- printf "%s:%s" $image.repository (default .Chart.AppVersion $image.tag) -}}
{{- with $image.digest }}@{{ . }}{{ end -}}
{{- end -}}

{{- define "tenure.imagePullSecrets" -}}
{{- with concat (.Values.global.imagePullSecrets | default list) (.Values.imagePullSecrets | default list) -}}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end -}}
{{- end -}}

{{/* A probe. The scheme follows http.tls; where clients must show a certificate, the kubelet cannot, and the binary asks its
     own socket instead: (dict "root" $ "probe" … "expect" "live"). */}}
{{- define "tenure.probe" -}}
{{- $probe := deepCopy .probe -}}
{{- $tls := .root.Values.http.tls -}}
{{- if and $probe.httpGet $tls.existingSecret $tls.clientCaKey -}}
{{- $_ := set $probe "exec" (dict "command" (list "/tenure" "check" "--expect" .expect)) -}}
{{- $_ := unset $probe "httpGet" -}}
{{- else if and $probe.httpGet $tls.existingSecret -}}
{{- $_ := set $probe.httpGet "scheme" "HTTPS" -}}
{{- end -}}
{{- toYaml $probe -}}
{{- end -}}

{{- define "tenure.scheme" -}}
{{- ternary "http" "https" (empty .Values.http.tls.existingSecret) -}}
{{- end -}}

{{/* Whether the pods ask the API server. */}}
{{- define "tenure.routes" -}}
{{- if ne .Values.routing.mode "gate" }}true{{ end -}}
{{- end -}}

{{/* Milliseconds of a duration. */}}
{{- define "tenure.millis" -}}
{{- $units := dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000 -}}
{{- mul (regexFind "^[0-9]+" .) (get $units (regexFind "[a-z]+$" .)) -}}
{{- end -}}
