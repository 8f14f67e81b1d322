/** Snapshots of volumes at one site. */
export interface SnapshotTables {
  snapshots: SnapshotRow
}

export interface SnapshotRow {
  /** UUID; the agent knows the snapshot by it. */
  id: string
  project: string
  /** Empty: none was given. */
  name: string
  description: string | null
  /** JSON object of strings. */
  metadata: string
  /** Of all its volumes together, when it was taken. */
  size_gb: number
  /** The protection group whose disks they are; null: volumes were named one by one. */
  group_id: string | null
  site: string
  /** JSON array of volume ids. */
  volumes: string
  /** See src/domain/snapshot.ts. */
  status: string
  /** JSON of what the agent said when it was taken; null until then. */
  facts: string | null
  /** Why the status is an error; null otherwise. */
  failure_detail: string | null
  created_at: number
  updated_at: number
}
