import type { Bit } from '../bit.ts'

/** What the database knows about itself. */
export interface MetaTables {
  meta: MetaRow
  applied_migrations: AppliedMigrationRow
}

/** Exactly one row, with id 1. */
export interface MetaRow {
  id: number
  /** Random name of this life of the database: a restore gives a new one. */
  incarnation: string
  /** 1 for a new database, one more with every restore. */
  incarnation_number: number
  created_at: number
  /** 1: the control plane that used this database last stopped in order. Meaningful on SQLite only. */
  clean_shutdown: Bit
  /** Boot id of the host that last started a control plane on this database; null: none since the restore. */
  boot_id: string | null
  /**
   * Name of the present stretch of unbroken history. An ownership record is trusted while its own mark equals
   * this one; whatever casts doubt on the history (a restore, a promoted standby) writes a new mark here.
   */
  history_mark: string
  /** What the engine says it is: `sqlite`, or PostgreSQL's system identifier and timeline. */
  engine_identity: string
}

export interface AppliedMigrationRow {
  /** `0001-ground` */
  name: string
  /** SHA-256 over the statements that it ran, hex. */
  statements_sha256: string
  /** SHA-256 over the whole schema as the engine described it right after, hex. */
  schema_sha256: string
  applied_at: number
}
