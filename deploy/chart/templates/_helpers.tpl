{{- define "weft.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag }}
{{- end }}

{{- define "weft.etcd" -}}
{{- if eq .Values.datastore.type "etcdv3" }}true{{ end }}
{{- end }}

{{/* The API groups that may be the datastore, without their version. */}}
{{- define "weft.groups" -}}
{{- if .Values.datastore.apiGroup }}{{ .Values.datastore.apiGroup | splitList "/" | first }}
{{- else }}projectcalico.org, crd.projectcalico.org
{{- end }}
{{- end }}

{{/* What the IPAM configuration is called in them. */}}
{{- define "weft.ipamconfigs" -}}
{{- $legacy := contains "crd.projectcalico.org" (include "weft.groups" .) }}
{{- $native := hasPrefix "projectcalico.org" (include "weft.groups" .) }}
{{- if $native }}ipamconfigurations{{ end }}{{ if and $native $legacy }}, {{ end }}{{ if $legacy }}ipamconfigs{{ end }}
{{- end }}

{{/* The controllers that run, as ENABLED_CONTROLLERS wants them. */}}
{{- define "weft.controllers" -}}
{{- if .Values.controllers.enabled }}{{ join "," .Values.controllers.enabled }}
{{- else if include "weft.etcd" . }}policy,namespace,serviceaccount,workloadendpoint,node,loadbalancer
{{- else }}node,loadbalancer
{{- end }}
{{- end }}

{{/* Environment that says where the datastore and the Kubernetes API are. */}}
{{- define "weft.datastoreEnv" -}}
- name: DATASTORE_TYPE
  value: {{ .Values.datastore.type }}
{{- if include "weft.etcd" . }}
- name: ETCD_ENDPOINTS
  value: {{ required "datastore.etcd.endpoints: must name the etcd, such as https://10.0.0.5:2379" .Values.datastore.etcd.endpoints | quote }}
{{- if .Values.datastore.etcd.tlsSecret }}
- name: ETCD_CA_CERT_FILE
  value: /etc/weft/etcd/etcd-ca
- name: ETCD_CERT_FILE
  value: /etc/weft/etcd/etcd-cert
- name: ETCD_KEY_FILE
  value: /etc/weft/etcd/etcd-key
{{- end }}
{{- else if .Values.datastore.apiGroup }}
- name: CALICO_API_GROUP
  value: {{ .Values.datastore.apiGroup }}
{{- end }}
{{- if .Values.apiServer.host }}
- name: KUBERNETES_SERVICE_HOST
  value: {{ .Values.apiServer.host | quote }}
- name: KUBERNETES_SERVICE_PORT
  value: {{ .Values.apiServer.port | quote }}
{{- end }}
{{- end }}

{{/* Environment of a default pool, of: prefix, pool, ipip (whether IP in IP exists for it). */}}
{{- define "weft.poolEnv" -}}
{{- $e := .pool.encapsulation }}
{{- if .ipip }}
- name: {{ .prefix }}_IPIP
  value: {{ get (dict "IPIP" "Always" "IPIPCrossSubnet" "CrossSubnet") $e | default "Never" }}
{{- end }}
- name: {{ .prefix }}_VXLAN
  value: {{ get (dict "VXLAN" "Always" "VXLANCrossSubnet" "CrossSubnet") $e | default "Never" }}
{{- if .pool.cidr }}
- name: {{ .prefix }}_CIDR
  value: {{ .pool.cidr | quote }}
{{- end }}
- name: {{ .prefix }}_BLOCK_SIZE
  value: {{ .pool.blockSize | quote }}
- name: {{ .prefix }}_NAT_OUTGOING
  value: {{ .pool.natOutgoing | quote }}
- name: {{ .prefix }}_NODE_SELECTOR
  value: {{ .pool.nodeSelector | quote }}
{{- end }}
