import { TAGS_MAX } from '#domain/tag.ts'
import { Refusal } from '../http/refusal.ts'

/** The service's own error codes, as far as this server emits them, with the HTTP status published for each. */
export const EVS_CODES = {
  'EVS.0001': [400, 'The project in the path is not the one you are authorised for.'],
  'EVS.1001': [400, 'The update holds neither a valid name nor a valid description.'],
  'EVS.1002': [400, 'The disk id is malformed.'],
  'EVS.1003': [400, 'name: text of at most 255 bytes.'],
  'EVS.1004': [400, 'description: text of at most 255 bytes.'],
  'EVS.1005': [400, 'metadata: more than 1048576 bytes.'],
  'EVS.1006': [400, 'backup_id: this server creates no disks from backups.'],
  'EVS.1007': [400, 'name and description are both empty.'],
  'EVS.1008': [400, 'The body of the creation is missing.'],
  'EVS.1009': [400, 'The body of the creation is malformed.'],
  'EVS.1010': [400, 'size: a whole number of gigabytes from 1 to 32768.'],
  'EVS.1011': [400, 'The body of the extension is missing.'],
  'EVS.1015': [400, 'The new size is not larger than the present one.'],
  'EVS.1016': [400, 'Only one source of a disk may be named.'],
  'EVS.1018': [400, 'A member has the wrong JSON type.'],
  'EVS.1020': [400, 'volume_type: must be text.'],
  'EVS.1021': [400, 'count: a whole number from 1 to 100.'],
  'EVS.1024': [400, 'marker: must be the id of a disk.'],
  'EVS.1025': [400, 'metadata: the filter cannot be read.'],
  'EVS.1027': [403, 'Your role does not allow this operation.'],
  'EVS.1034': [400, 'The quota of disks is used up.'],
  'EVS.1036': [400, 'The availability zone is unknown.'],
  'EVS.1039': [400, 'sort_key: id, status, size or created_at.'],
  'EVS.1040': [400, 'sort_dir: asc or desc.'],
  'EVS.1041': [400, 'availability_zone: the filter names an unknown zone.'],
  'EVS.1042': [400, 'The quota of gigabytes is used up.'],
  'EVS.1046': [400, 'The state of the disk does not allow its deletion.'],
  'EVS.1047': [400, 'The state of the snapshot does not allow this.'],
  'EVS.1048': [400, 'The state of the disk does not allow its extension.'],
  'EVS.1054': [400, 'multiattach: true or false.'],
  'EVS.1057': [400, 'hw:passthrough: "true" or "false".'],
  'EVS.1061': [400, `tags: a disk has at most ${TAGS_MAX}.`],
  'EVS.1062': [400, 'tags: keys of 1 to 127 characters and values of at most 255.'],
  'EVS.1063': [400, 'full_clone: "0" or "1".'],
  'EVS.1065': [400, 'A shared disk is extended only while it is available.'],
  'EVS.1066': [400, 'The server that has the disk does not let it grow in its state.'],
  'EVS.1043': [400, 'A disk made from a snapshot is neither encrypted nor passed through.'],
  'EVS.2041': [400, 'Encrypted disks are not offered.'],
  'EVS.2043': [400, 'The snapshot is not available.'],
  'EVS.2045': [400, 'The snapshot does not exist.'],
  'EVS.2046': [400, 'The image does not exist.'],
  'EVS.2047': [400, 'metadata: this key is set when the disk is made, or by the service.'],
  'EVS.2054': [400, 'The source of the disk lies in another availability zone.'],
  'EVS.2070': [400, 'The disk type is unknown.'],
  'EVS.2087': [400, 'new_type: a higher type than the present one. SATA, SAS, GPSSD, SSD, ESSD.'],
  'EVS.2089': [400, 'The disk belongs to a replication pair. Act on the pair.'],
  'EVS.2142': [400, 'limit: at most 1000.'],
  'EVS.5400': [400, 'The request is malformed, or the state does not allow it.'],
  'EVS.5401': [401, 'Not authenticated.'],
  'EVS.5404': [404, 'There is no such resource.'],
  'EVS.5413': [413, 'The quota is exhausted.'],
  'EVS.5500': [500, 'Internal error. The log of the control plane has more under the request id.'],
  'EVS.5503': [503, 'A part of the service does not answer. Repeat the request.'],
} as const satisfies Record<string, readonly [number, string]>

export type EvsCode = keyof typeof EVS_CODES

export function refuse(code: EvsCode, message?: string): Refusal {
  const [status, text] = EVS_CODES[code]
  return new Refusal(status, code, message ?? text)
}

/**
 * Cinder clients take the first member, whatever its name; the others read `error`. So there are both, in this order.
 */
export function errorBody({ status, code, message }: Pick<Refusal, 'status' | 'code' | 'message'>) {
  return {
    [FAULT_NAMES[status] ?? 'computeFault']: { message, code: status },
    error: { message, code },
  }
}

const FAULT_NAMES: Readonly<Record<number, string>> = {
  400: 'badRequest',
  401: 'unauthorized',
  403: 'forbidden',
  404: 'itemNotFound',
  405: 'badMethod',
  409: 'conflictingRequest',
  413: 'overLimit',
  429: 'overLimit',
  503: 'serviceUnavailable',
}
