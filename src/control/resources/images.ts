import { derivedId } from '#base/ids.ts'
import type { Queries, Transaction } from '#control/store/store.ts'
import type { ImageRow } from '#control/store/tables/servers.ts'

/* Images of the region, the same for every project: the built-in ones. Their ids follow from their names, so that they are
 * the same in every region and survive a database that was made anew. The agents know the bytes under `content`. */
type Db = Queries | Transaction

interface BuiltIn {
  readonly name: string
  readonly osVersion: string
  /** Whole gigabytes of the smallest disk that it fits on. */
  readonly minDiskGb: number
  readonly minMemoryMb: number
}

const BUILT_IN: readonly BuiltIn[] = [
  { name: 'holdfast-tiny', osVersion: 'Debian 12 64bit', minDiskGb: 1, minMemoryMb: 128 },
  { name: 'holdfast-counter', osVersion: 'Debian 12 64bit', minDiskGb: 1, minMemoryMb: 128 },
]

export const imageId = (name: string): string => derivedId(`image ${name}`)

/** Adds what is missing and brings the rest up to date. Run at every start. */
export async function seedImages(tx: Transaction, nowMs: number): Promise<void> {
  for (const { name, osVersion, minDiskGb, minMemoryMb } of BUILT_IN) {
    const facts = {
      content: name,
      os_version: osVersion,
      min_disk_gb: minDiskGb,
      min_memory_mb: minMemoryMb,
    }
    await tx
      .insertInto('images')
      .values({ id: imageId(name), name, ...facts, created_at: nowMs })
      .onConflict((conflict) => conflict.column('id').doUpdateSet(facts))
      .execute()
  }
}

/** By name. */
export async function listImages(db: Db): Promise<ImageRow[]> {
  return await db.selectFrom('images').selectAll().orderBy('name').execute()
}

/** By id alone: a name in the place of an id names nothing, clients look it up first. */
export async function findImage(db: Db, id: string): Promise<ImageRow | undefined> {
  return await db.selectFrom('images').selectAll().where('id', '=', id).executeTakeFirst()
}

export async function findImageByName(db: Db, name: string): Promise<ImageRow | undefined> {
  return await db.selectFrom('images').selectAll().where('name', '=', name).executeTakeFirst()
}
