{{- /* The name of every object. The admission policy knows the account by its beginning. */ -}}
{{- define "stagegate.name" -}}
{{ printf "stagegate-agent-%s" .Release.Name | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- /* A manifest of the folders beside this chart, with the names, the image and the places of this release. */ -}}
{{- define "stagegate.named" -}}
{{- $root := first . }}
{{- $name := include "stagegate.name" $root }}
{{- $text := last . | replace "stagegate-agent" $name | replace "stagegate-pages" (printf "%s-pages" $name) }}
{{- $text = $text | replace "configMapRef: { name: stagegate }" (printf "configMapRef: { name: %s }" $name) }}
{{- $text = $text | replace "stagegate-credentials" $root.Values.credentials }}
{{- $text = $text | replace "image: prefect-stagegate" (printf "image: %s" ($root.Values.image | toJson)) }}
{{- $text = $text | replace "path: /mnt/nvme/stagegate" (printf "path: %s" ($root.Values.cache | toJson)) }}
{{- regexReplaceAllLiteral "namespace: stagegate\\b" $text (printf "namespace: %s" $root.Release.Namespace) }}
{{- end }}

{{- /* The blob server's component, with the nodes' network of this release. */ -}}
{{- define "stagegate.patches" -}}
{{- $text := include "stagegate.named" (list . (.Files.Get "components/blob-server/kustomization.yaml")) }}
{{- regexReplaceAllLiteral "STAGEGATE_PEER_HOSTS, value: \"[^\"]*\"" $text (printf "STAGEGATE_PEER_HOSTS, value: %s" (.Values.blobServer.hosts | toJson)) }}
{{- end }}

{{- define "stagegate.selector" -}}
app.kubernetes.io/name: {{ hasSuffix "-pages" (last .) | ternary "stagegate-pages" "stagegate-agent" }}
app.kubernetes.io/instance: {{ (first .).Release.Name }}
{{- end }}

{{- define "stagegate.labels" -}}
{{ include "stagegate.selector" . }}
app.kubernetes.io/managed-by: {{ (first .).Release.Service }}
helm.sh/chart: {{ (first .).Chart.Name }}-{{ (first .).Chart.Version }}
{{- end }}
