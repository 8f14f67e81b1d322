import Type, { type Static } from 'typebox'

/* Questions about a guest that the agent of its site can answer: has it come up, does it serve? A probe changes nothing in the guest but
 * what the probed service itself does when it is asked. */

const Id = Type.String({ minLength: 1, maxLength: 64, pattern: '^[0-9a-zA-Z-]+$' })
const Port = Type.Integer({ minimum: 1, maximum: 65_535 })
const Text = Type.String({ minLength: 1, maxLength: 1024 })

/** Longest wait of one command to an agent; whoever wants to wait longer asks again. */
export const PROBE_MS_MAX = 20_000

/**
 * boot     the serial console shows `marker` (plain text) since the guest's last start; without one: the guest uses the address of its first NIC
 * tcp      a connection to the port is accepted at the guest's first NIC, from inside its own network
 * http     GET answers with the status (any of 200 to 399 when none is given), and with `contains` in the first 64 KiB of the body
 * command  the guest agent runs it and it exits with 0; it is run again until it does, so it must be one that may be repeated
 *
 * `detail` begins with NO_GUEST_AGENT for a guest whose agent does not answer, and with NO_NETWORK_ACCESS at sites whose driver has no way into
 * the networks of its guests (libvirt, hooks): there only `boot` with a marker can succeed. A guest that is not running is an answer
 * that is not ok, not a refusal.
 */
export const Probe = Type.Union([
  Type.Object({ kind: Type.Literal('boot'), marker: Type.Optional(Text) }),
  Type.Object({ kind: Type.Literal('tcp'), port: Port }),
  Type.Object({
    kind: Type.Literal('http'),
    port: Port,
    path: Type.String({ pattern: '^/[\\x21-\\x7e]*$', maxLength: 1024 }),
    status: Type.Optional(Type.Integer({ minimum: 100, maximum: 599 })),
    contains: Type.Optional(Text),
  }),
  Type.Object({
    kind: Type.Literal('command'),
    command: Type.Array(Text, { minItems: 1, maxItems: 64 }),
  }),
])
export type Probe = Static<typeof Probe>

export const ProbeRequest = Type.Object({
  server: Id,
  probe: Probe,
  /** The agent answers when the probe succeeded or this has passed. */
  wait_ms: Type.Integer({ minimum: 0, maximum: PROBE_MS_MAX }),
  /** True: it answers at once with what is known, and goes on looking for a minute after the last question. `wait_ms` counts for nothing then. */
  watch: Type.Optional(Type.Boolean()),
})
export type ProbeRequest = Static<typeof ProbeRequest>

export const ProbeAnswer = Type.Object({
  ok: Type.Boolean(),
  /** What was seen, for people: `connection refused`, `status 503` ... */
  detail: Type.String(),
  /** From the guest's last start until the probe first succeeded, ms; null: not yet. */
  since_start_ms: Type.Union([Type.Number(), Type.Null()]),
  /** Last part of what a command printed, or of a body; at most 4 KiB. */
  output: Type.String(),
})
export type ProbeAnswer = Static<typeof ProbeAnswer>
