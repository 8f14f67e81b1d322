import type { Manifest } from '#vault/format/manifest.ts'

/* How the checkpoints of a vault are shown. */

export const labelText = (labels: Readonly<Record<string, string>>): string =>
  Object.entries(labels)
    .map(([key, value]) => `${key}=${value}`)
    .join(' ') || 'no labels'

export const manifestJson = (manifest: Manifest) => ({
  id: manifest.id,
  created: new Date(manifest.createdMs).toISOString(),
  parent: manifest.parent ?? null,
  labels: manifest.labels,
  volumes: manifest.volumes.map(({ id, sizeBytes }) => ({ id, size_bytes: sizeBytes })),
  stored_bytes: manifest.storedBytes,
  duration_ms: manifest.durationMs,
})
