import { join } from 'node:path'
import Type, { type Static } from 'typebox'
import { Value } from 'typebox/value'
import { decodeChecked, encodeChecked } from '#base/checked-json.ts'
import { readTextIfPresent, writeFileWhole } from '#base/system/files.ts'
import { SessionMember } from '#wire/site/commands.ts'

/** Members of a session as this site knows them, and where its peer is. DIR/members.json, replaced as a whole. */
export const StoredMember = Type.Intersect([
  SessionMember,
  Type.Object({
    /** This site's volume has had a full copy (always true where the member was added as the writer's). */
    joined: Type.Boolean(),
    /** The last rebuild of this site's copy. Not done: the volume is to be replaced by an empty one before it is opened. */
    rebuild: Type.Optional(
      Type.Object({
        id: Type.String(),
        done: Type.Boolean(),
        /** Of the volume, while there may be none. */
        owner: Type.Optional(Type.String()),
      }),
    ),
  }),
])
export type StoredMember = Static<typeof StoredMember>

export const MembersFile = Type.Object({
  /** 1: without a checksum. */
  version: Type.Union([Type.Literal(1), Type.Literal(2)]),
  /** `host:port` of the peer's link listener. */
  peer_link: Type.String(),
  /** Bytes per second for copies; null: the agent's setting. */
  copy_rate_bytes: Type.Union([Type.Integer({ minimum: 0 }), Type.Null()]),
  members: Type.Array(StoredMember),
  /** Indexes that were members once: frames for them may still arrive and are dropped. */
  removed: Type.Array(Type.Integer({ minimum: 1 })),
})
export type MembersFile = Static<typeof MembersFile>

export const NO_MEMBERS: MembersFile = {
  version: 2,
  peer_link: '',
  copy_rate_bytes: null,
  members: [],
  removed: [],
}

/** null: there is none. 'damaged': there is one that cannot be read, or is not what was written. */
export async function readMembers(directory: string): Promise<MembersFile | null | 'damaged'> {
  const text = await readTextIfPresent(join(directory, 'members.json'))
  if (text === undefined) return null
  const found = decodeChecked(text)
  if (found === null || !Value.Check(MembersFile, found.value)) return 'damaged'
  return found.value.version === (found.checked ? 2 : 1) ? found.value : 'damaged'
}

export function writeMembers(directory: string, members: MembersFile): Promise<void> {
  const text = encodeChecked({ ...members, version: 2 }, 1)
  return writeFileWhole(join(directory, 'members.json'), text, 0o600)
}
