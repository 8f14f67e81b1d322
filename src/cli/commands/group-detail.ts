import type { Foretold, GroupDetail, Preflight } from '#client/native.ts'
import { columns } from '../output.ts'

/* What the witness and both sites say about a group, as lines for people. */

export function detailLines(group: GroupDetail): string[] {
  const { record } = group
  if (record === null) return ['never protected']
  const lines = [
    `ownership: ${record.state}, epoch ${record.epoch}, ${record.writer} writes`,
    `arbitration: ${arbitrationText(record)}`,
    `replication: ${group.sync}, fault level ${group.fault_level}`,
  ]
  lines.push(
    `last verified: ${group.last_verified_at ?? 'never in full'}${group.mismatched_bytes === 0 ? '' : `, ${group.mismatched_bytes} bytes DIFFER`}`,
  )
  if (record.alone !== null) {
    const { bytes, since } = record.alone
    lines.push(
      bytes === 0
        ? `only ${record.writer} is written to since ${since}; nothing is known yet that the other site lacks`
        : `the other site lacks at least ${bytes} bytes written since ${since}`,
    )
  }
  if (record.doubt !== null) lines.push(doubtText(record.doubt))
  lines.push('')
  return [...lines, ...sideLines(group)]
}

export const arbitrationText = ({
  mode,
  preferred,
}: {
  mode: string
  preferred: string
}): string =>
  mode === 'witness'
    ? 'witness (without the witness nobody goes on alone)'
    : `${mode} (${preferred} may go on alone without the witness)`

function doubtText({
  reason,
  awaits,
}: NonNullable<NonNullable<GroupDetail['record']>['doubt']>): string {
  const sites = awaits.length === 0 ? 'both sites claim to write' : `awaited: ${awaits.join(', ')}`
  return reason === 'agent_ahead'
    ? `IN DOUBT: a site acts under a higher epoch (break-glass); nothing is granted until it presents its record (${sites})`
    : `IN DOUBT: the state was restored or taken over; nothing is granted until both sites have reported (${sites}), or \`holdfast group vouch\``
}

/** What a silent site last said is the past: its role then. */
const sideLines = (group: GroupDetail): string[] =>
  columns(
    ['site', 'is', 'heard', 'role', 'phase', 'link', 'copy', 'out of touch since', 'remarks'],
    group.sides.map(({ site, role, heard, age_ms, session }) => [
      site,
      role,
      heard ? 'yes' : age_ms === null ? 'never' : `${Math.round(age_ms / 1000)} s ago`,
      session === null || heard ? session?.role : `was ${session.role}`,
      session === null || heard ? session?.phase : `was ${session.phase}`,
      heard ? session?.link : null,
      session === null || session.role === 'fenced'
        ? null
        : session.consistent
          ? 'consistent'
          : 'incomplete',
      timeOf(session?.out_of_touch_ms ?? null),
      session === null ? null : remarks(session),
    ]),
  )

type SessionDetail = NonNullable<GroupDetail['sides'][number]['session']>

function remarks(session: SessionDetail): string {
  const said = [
    session.unwitnessed ? 'writes without the witness' : '',
    session.kept === null ? '' : 'keeps its last consistent copy',
    unfitText(session),
    session.copy_kind === 'full' ? 'full copy: no common history' : '',
  ]
  return said.filter((one) => one !== '').join('; ') || '-'
}

/** A writer passes on what the replica says of itself. */
function unfitText({ role, unfit }: Pick<SessionDetail, 'role' | 'unfit'>): string {
  if (unfit === null) return ''
  return `${role === 'writer' ? 'the other site ' : ''}cannot hold a copy: ${unfit}`
}

/** What is worth saying before an action is asked for; nothing when it takes its ordinary course. */
export function preflightLines(preflight: Preflight): string[] {
  const lines: string[] = []
  if (preflight.full_copy) {
    lines.push(
      'the two sites have no common history: every block is compared, and copied where different',
    )
  }
  if (preflight.given_up !== null && preflight.given_up.kind !== 'nothing') {
    lines.push(`given up: ${preflight.given_up.text}`)
  }
  if (preflight.freezes) lines.push('the writing site is frozen first')
  if (preflight.leaves_behind.length > 0) {
    lines.push(`pairs never copied in full stay behind: ${preflight.leaves_behind.join(', ')}`)
  }
  if (preflight.dr_copy === 'kept') {
    lines.push('the DR side goes back to the copy that it kept when its resync began')
  }
  return lines
}

/** All of it, for whoever asks before he acts. */
export function preflightReport(found: Preflight): string[] {
  const { action, accepted, blockers, warnings, needs, steps } = found
  const { total_ms: total, p90_ms: p90, parts, afterwards } = found.expected_time
  const listed = (title: string, list: Preflight['blockers']) =>
    list.length === 0
      ? []
      : [title, ...list.map((one) => `  ${one.code}: ${one.message} ${one.action}`)]
  const part = ({ name, ms, basis }: (typeof parts)[number]) =>
    `${name.replace('_', ' ')} ${seconds(ms)} (${basis})`
  const loss = found.expected_loss
  const lost = loss === null ? [] : [lossText(loss)]
  return [
    accepted ? `${action}: would be accepted` : `${action}: would be refused`,
    ...listed('stands against it:', blockers),
    ...listed('worth knowing:', warnings),
    ...(needs.length === 0 ? [] : [`needs: ${needs.map((one) => NEEDED[one]).join(' ')}`]),
    ...lost,
    `expected time: ${total === null ? 'not known' : seconds(total)}${p90 === null ? '' : `, in nine of ten at most ${seconds(p90)}`}${parts.length === 0 ? '' : `: ${parts.map(part).join(', ')}`}`,
    ...(afterwards.length === 0 ? [] : [`after the job: ${afterwards.map(part).join(', ')}`]),
    'what happens:',
    ...steps.map((step, index) => `  ${index + 1}. ${step}`),
  ]
}

/** How well the time of an action was foretold; nothing when it has not ended, or nothing was foretold. */
export function foretoldLines(
  one: Pick<Foretold, 'forecast_ms' | 'actual_ms'> | undefined,
): string[] {
  if (one === undefined || one.forecast_ms === null || one.actual_ms === null) return []
  return [`forecast ${seconds(one.forecast_ms)}, took ${seconds(Math.max(0, one.actual_ms))}`]
}

function lossText({ bytes, writes, ms, text }: NonNullable<Preflight['expected_loss']>): string {
  const known = [
    bytes === null ? '' : `${bytes} bytes`,
    writes === null ? '' : `${writes} writes`,
    ms === null ? '' : seconds(ms),
  ].filter((one) => one !== '')
  return `expected loss: ${known.length === 0 ? 'not known' : known.join(', ')}. ${text}`
}

const seconds = (ms: number): string => `${(ms / 1_000).toFixed(1)} s`

const NEEDED = { force: '--force', preferred_off: '--preferred-site-is-off' } as const

const timeOf = (ms: number | null): string | null =>
  ms === null ? null : new Date(ms).toISOString()
