import type { Kysely } from 'kysely'
import type { Engine } from '../store.ts'

/** One change of the schema. */
export interface Migration {
  /** `NNNN-name`, numbers without gaps. */
  readonly name: string
  up(db: Kysely<unknown>, engine: Engine): Promise<void>
}
