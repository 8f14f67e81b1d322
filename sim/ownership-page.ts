import {
  ALONE,
  type ChangeKind,
  decideOwnership,
  OWNERSHIP_MOVES,
  type Ownership,
  type OwnershipRequest,
  type OwnershipState,
} from '#domain/ownership.ts'

/* Prints docs/formats/ownership-record.md from the rules themselves: each cell of the table is what `decideOwnership`
 * answered, not what somebody remembered. `npm run docs` writes the page, a test fails when it is stale. */

const STATES: readonly OwnershipState[] = [
  'closed',
  'resyncing',
  'in_sync',
  'solo',
  'frozen',
  'failed_over',
]
const KINDS = Object.keys(OWNERSHIP_MOVES) as ChangeKind[]

function requestOf(kind: ChangeKind, force: boolean): OwnershipRequest {
  const common = { epoch: 7, attempt: 'attempt-2' }
  switch (kind) {
    case 'rise':
    case 'drop':
    case 'solo':
    case 'resync':
      return { kind, site: 'W', ...common }
    case 'configure':
      return { kind, site: 'W', mode: 'static-priority', preferred: 'W', ...common }
    case 'open':
      return { kind, writer: 'W', replica: 'R', ...common }
    case 'failover':
      return { kind, force, consent: false, ...common }
    case 'freeze':
    case 'thaw':
    case 'reverse':
    case 'reprotect':
    case 'close':
      return { kind, ...common }
  }
}

function recordIn(state: OwnershipState, leased: boolean): Ownership {
  return {
    session: 's',
    epoch: 7,
    state,
    writer: 'W',
    replica: 'R',
    lease: leased ? { holder: 'W', endsBootMs: 2_000 } : null,
    alone: null,
    mode: 'witness',
    preferred: 'W',
    incarnation: 'i',
    attempt: 'attempt-1',
  }
}

const TIME = {
  bootMs: 1_000,
  waitUntilBootMs: 0,
  historyTrusted: true,
  leaseMs: 8_000,
  driftMs: 100,
  incarnation: 'i',
}

function answerOf(state: OwnershipState, kind: ChangeKind, force: boolean, leased: boolean) {
  return decideOwnership(recordIn(state, leased), requestOf(kind, force), TIME)
}

function cell(state: OwnershipState, kind: ChangeKind): string {
  const plain = answerOf(state, kind, false, false)
  const forced = answerOf(state, kind, true, false)
  if (!forced.ok) return '-'
  const swapped = forced.record.writer === 'R' ? ', writer and replica swapped' : ''
  const byForce = plain.ok ? '' : ', by force'
  const leased = state === 'in_sync' ? forced : answerOf(state, kind, true, true)
  const waits = leased.ok ? '' : ', after the lease'
  const keeps = leased.ok && leased.record.lease !== null ? ', lease kept' : ''
  return `${forced.record.state}${swapped}${byForce}${waits}${keeps}`
}

/** The whole page, ready to be written. */
export function ownershipPage(): string {
  const head = `| State | ${KINDS.join(' | ')} |`
  const rule = `|---|${KINDS.map(() => '---').join('|')}|`
  const rows = STATES.map(
    (state) => `| ${state} | ${KINDS.map((kind) => cell(state, kind)).join(' | ')} |`,
  )
  return `# Ownership record

The witness's truth about one replicated group: one row of the control plane's database, changed by compare-and-set on its epoch. The rules are
\`src/domain/ownership.ts\`; this page is written by \`npm run docs\` and a test compares the two.

## Fields

| Field | Type | Meaning |
|---|---|---|
| session | text | opaque id of the group's session |
| epoch | integer ≥ 0 | raised by one with every change of state, by more when a restored database is trusted again or after break-glass; 0 means never opened |
| state | one of ${STATES.map((state) => `\`${state}\``).join(', ')} | see below |
| writer, replica | site names, different | who may write (last did, in \`closed\`), and the other one |
| lease | null, or holder and end | who may acknowledge alone, until when; milliseconds of the witness host's CLOCK_BOOTTIME, meaningless on another boot |
| alone | null, or number, bytes, time | what the writer has done alone since the sites lost each other, as it last said with a renewal: a failover by force gives up at least so much |
| mode, preferred | text | what to do when the witness cannot be reached; stored with the epoch at both sites |
| incarnation | text | the database under which the last change was made |
| attempt | text | id of the request that made the last change; repeating it gives the same answer |

The record is durable before any answer that depends on it is sent.

## Changes

Each change needs the present epoch, and raises it by one. \`rise\`, \`drop\`, \`solo\`, \`resync\` and \`configure\` come from the writing site's agent, the
others from operations. An empty cell (-) is refused with \`WRONG_STATE\`.

${head}
${rule}
${rows.join('\n')}

A lease is given only in ${[...ALONE].map((state) => `\`${state}\``).join(', ')}, and only to the writer. \`confirm\` reads the record; \`renew\` sets the lease to the
present moment plus its length, keeps what the writer says of its work alone, and changes nothing else. A change that the writer did not ask for itself leaves its lease in the record,
because it answers under what it knows until it hears of the change: \`freeze\`, \`thaw\`, \`reprotect\`, \`close\`, \`open\`.

\`promoted\` comes from an agent after break-glass, with the record it acts under. If that record's epoch is higher than the witness's, it becomes the witness's record, in state
\`failed_over\`, from any state and whether or not the history is trusted; otherwise the answer is \`STALE_EPOCH\`.

## Who may go on alone

| Mode | Witness says yes | Witness names another, or frozen | Witness cannot be reached |
|---|---|---|---|
| witness | alone, under a lease | fenced | nobody |
| static-priority | alone, under a lease | fenced | the preferred site, while it is the writer |

So in \`static-priority\` neither an ended lease nor a record in sync says that the preferred site has stopped:

| Writer | \`failover\` without consent | with \`preferred_off\` or the writer's consent |
|---|---|---|
| preferred | ${failoverCell('W', false)} | ${failoverCell('W', true)} |
| other | ${failoverCell('R', false)} | ${failoverCell('R', true)} |

## Refusals

In the order in which they are decided:

| Refusal | When | What the asking side does |
|---|---|---|
| STALE_EPOCH | the request names another epoch than the record | the record comes along: still named as writer, it adopts the record; else it fences itself |
| NOT_WRITER | an agent asks for a site that is not the recorded writer | fences itself |
| WRONG_STATE | the table above has no such move; a renewal where nobody is alone | adopts the record |
| WITNESS_WAITING | the database was restored, or promoted, and not both agents have reported since | asks again |
| NOT_IN_SYNC | failover without force, and the replica lacks writes | an operator decides |
| PREFERRED_MAY_RUN | failover from the preferred site of \`static-priority\`, without its consent or the statement that it is off | an operator decides |
| LEASE_HELD | another site would become writer while a lease lives | asks again after the time told |

A repeat of the attempt that made the last change is answered before any of these with the record as it is.
`
}

/** What a failover by force answers in sync, under static priority. */
function failoverCell(preferred: 'W' | 'R', preferredOff: boolean): string {
  const record = { ...recordIn('in_sync', false), mode: 'static-priority' as const, preferred }
  const request = { ...requestOf('failover', true), preferredOff } as OwnershipRequest
  const answer = decideOwnership(record, request, TIME)
  return answer.ok ? answer.record.state : answer.refusal
}
