import { Fault } from '#base/fault.ts'
import { isUuid } from '#base/ids.ts'
import { CHECKPOINT_UNKNOWN, VAULT_DAMAGED, VAULT_VERSION } from '../faults.ts'
import { type Keyring, sealWith, unsealWith } from '../keys/keyring.ts'
import { ENTRY_BYTES } from './entry.ts'

/* The manifest of a checkpoint: its volumes and the roots of their trees. Whoever puts the object under the session's id decides whether
 * the checkpoint exists: the backup with its manifest, or a collector with one word, which revokes the backup for good. An empty object is neither: it is damaged. */

export const MANIFEST_PREFIX = 'manifests/'
const VERSION = 1
/** Shorter than any manifest: a list tells them apart. */
export const REVOKED: Buffer = Buffer.from('revoked\n')
/** What a list says of a checkpoint that never came to be. */
export const isRevokedSize = (bytes: number): boolean => bytes === REVOKED.length

export interface VolumeRecord {
  /** Any name without control characters, up to 255 characters; Holdfast uses volume ids. */
  readonly id: string
  readonly sizeBytes: number
  /** Root entry. */
  readonly root: Buffer
}

export interface Manifest {
  /** UUID of the session that made it. */
  readonly id: string
  readonly createdMs: number
  readonly blockBytes: number
  readonly parent?: string
  /** Free for the caller, e.g. the server that was backed up. */
  readonly labels: Readonly<Record<string, string>>
  readonly volumes: readonly VolumeRecord[]
  /** Bytes of the packs that the backup added. */
  readonly storedBytes: number
  readonly durationMs: number
}

export const manifestKey = (id: string): string => `${MANIFEST_PREFIX}${id}`

export function checkpointIdOf(key: string): string | undefined {
  const id = key.startsWith(MANIFEST_PREFIX) ? key.slice(MANIFEST_PREFIX.length) : ''
  return isUuid(id) ? id : undefined
}

export function encodeManifest(keyring: Keyring, manifest: Manifest): Buffer {
  const json = {
    version: VERSION,
    id: manifest.id,
    created_ms: manifest.createdMs,
    block_bytes: manifest.blockBytes,
    ...(manifest.parent === undefined ? {} : { parent: manifest.parent }),
    labels: manifest.labels,
    volumes: manifest.volumes.map(({ id, sizeBytes, root }) => ({
      id,
      size_bytes: sizeBytes,
      root: root.toString('hex'),
    })),
    stored_bytes: manifest.storedBytes,
    duration_ms: manifest.durationMs,
  }
  return sealWith(keyring, 'manifest', manifestKey(manifest.id), Buffer.from(JSON.stringify(json)))
}

interface StoredManifest {
  readonly version: number
  readonly id: string
  readonly created_ms: number
  readonly block_bytes: number
  readonly parent?: string
  readonly labels: Record<string, string>
  readonly volumes: readonly { id: string; size_bytes: number; root: string }[]
  readonly stored_bytes: number
  readonly duration_ms: number
}

/** Throws VAULT_DAMAGED, and CHECKPOINT_UNKNOWN for the empty object that revokes a backup. */
export function decodeManifest(keyring: Keyring, id: string, bytes: Buffer): Manifest {
  const name = manifestKey(id)
  if (bytes.length === 0) {
    throw new Fault(CHECKPOINT_UNKNOWN, `reading ${name}: this backup was revoked`, { id })
  }
  const json = JSON.parse(unsealWith(keyring, 'manifest', name, bytes).toString()) as StoredManifest
  if (json.version > VERSION) {
    throw new Fault(VAULT_VERSION, `reading ${name}`, { object: name, version: json.version })
  }
  const volumes = json.volumes.map((volume) => ({
    id: volume.id,
    sizeBytes: volume.size_bytes,
    root: Buffer.from(volume.root, 'hex'),
  }))
  if (json.id !== id || volumes.some(({ root }) => root.length !== ENTRY_BYTES)) {
    throw new Fault(VAULT_DAMAGED, `reading ${name}: it describes something else`, { object: name })
  }
  return {
    id,
    createdMs: json.created_ms,
    blockBytes: json.block_bytes,
    ...(json.parent === undefined ? {} : { parent: json.parent }),
    labels: json.labels,
    volumes,
    storedBytes: json.stored_bytes,
    durationMs: json.duration_ms,
  }
}
