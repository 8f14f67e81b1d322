import { join } from 'node:path'
import Type, { type Static } from 'typebox'
import { Value } from 'typebox/value'
import { VerifyRun } from '#wire/site/verify.ts'
import { readTextIfPresent, writeFileWhole } from '#base/system/files.ts'

/* What verification remembers: DIR/sessions/ID/verify.json, replaced as a whole (docs/formats/verify-file.md).
 *
 * The cursor is a lower bound: everything before it has been compared, and every fault that was found before it is in the file. What was
 * compared behind it is compared again after a crash. */

const Count = Type.Integer({ minimum: 0 })

const VerifyFile = Type.Object({
  version: Type.Literal(1),
  run: Type.Union([
    Type.Null(),
    Type.Intersect([
      VerifyRun,
      Type.Object({
        /** Index of the member under way, and how far it is, bytes. Members are compared in the order of their indexes. */
        cursor: Type.Object({ member: Count, offset: Count }),
        /** Bytes of each member that differ and are not repaired, by index. */
        unrepaired: Type.Record(Type.String(), Count),
      }),
    ]),
  ]),
  /** By index. */
  members: Type.Record(
    Type.String(),
    Type.Object({ last_verified_at: Count, mismatched_bytes: Count }),
  ),
})
export type VerifyFile = Static<typeof VerifyFile>
export type StoredRun = NonNullable<VerifyFile['run']>

export const NOTHING_VERIFIED: VerifyFile = { version: 1, run: null, members: {} }

const NAME = 'verify.json'

/** null: there is none. 'damaged': nothing can be concluded from it, and nothing depends on it but what is shown. */
export async function readVerifyFile(directory: string): Promise<VerifyFile | null | 'damaged'> {
  const text = await readTextIfPresent(join(directory, NAME))
  if (text === undefined) return null
  try {
    const value: unknown = JSON.parse(text)
    return Value.Check(VerifyFile, value) ? value : 'damaged'
  } catch (error) {
    if (error instanceof SyntaxError) return 'damaged'
    throw error
  }
}

/** Durable when it resolves. */
export function writeVerifyFile(directory: string, file: VerifyFile): Promise<void> {
  return writeFileWhole(join(directory, NAME), JSON.stringify(file), 0o600)
}
