import type { BackupWorld } from '../../support/backup-world.ts'

/* What the tests of the codes of the backup service have made once, and work with. */

export type Case = readonly [
  code: string,
  status: number,
  method: 'GET' | 'POST' | 'PUT' | 'DELETE',
  path: string,
  body?: unknown,
]

export interface CsbsMade {
  readonly world: BackupWorld
  readonly servers: readonly { readonly id: string; readonly volume: string }[]
  /** A backup of the first server. */
  // oxlint-disable-next-line typescript/no-explicit-any -- answers of many shapes
  readonly item: any
  /** Of the second. */
  // oxlint-disable-next-line typescript/no-explicit-any -- answers of many shapes
  readonly policy: any
  /** Of a server. */
  readonly id: (at: number) => string
  readonly refusals: (cases: readonly Case[]) => Promise<void>
}
