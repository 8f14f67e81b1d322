import Type from 'typebox'
import { Value } from 'typebox/value'
import { GUEST_OFF, type GuestState } from '../driver.ts'

/* What programs answer, checked. docs/operating/compute-hooks.md describes it for their authors. */

const Names = Type.Array(Type.String({ minLength: 1, maxLength: 64 }), { maxItems: 64 })

const StateAnswer = Type.Object({
  power: Type.Union(['running', 'off', 'paused', 'unknown'].map((one) => Type.Literal(one))),
  end: Type.Optional(Type.Union(['itself', 'stopped', 'died'].map((one) => Type.Literal(one)))),
  reason: Type.Optional(Type.Union([Type.String({ maxLength: 2_000 }), Type.Null()])),
  disks: Type.Optional(Names),
  nics: Type.Optional(
    Type.Array(Type.Object({ port: Type.String(), mac: Type.String() }), { maxItems: 64 }),
  ),
  releasing: Type.Optional(Names),
})

const ListAnswer = Type.Object({
  servers: Type.Array(Type.String({ pattern: '^[0-9a-zA-Z-]{1,64}$' }), { maxItems: 100_000 }),
})

/** undefined: it is no such answer. */
export function stateOf(output: string): GuestState | undefined {
  const json = parse(output)
  if (!Value.Check(StateAnswer, json)) return undefined
  const { power, end, reason, disks = [], nics = [], releasing = [] } = json
  if (power === 'off') {
    return { ...GUEST_OFF, end: (end ?? 'stopped') as GuestState['end'], reason: reason ?? null }
  }
  return {
    power: power as GuestState['power'],
    end: 'stopped',
    reason: reason ?? null,
    disks,
    nics: nics.map(({ port, mac }) => ({ port, mac: mac.toLowerCase() })),
    releasing: releasing.filter((volume) => disks.includes(volume)),
  }
}

export function listOf(output: string): readonly string[] | undefined {
  const json = parse(output)
  return Value.Check(ListAnswer, json) ? json.servers : undefined
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
