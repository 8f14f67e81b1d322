/* What a group does when sites, links and the witness are lost, row by row: the table of docs/operating/arbitration.md, and what is done and expected
 * when a row is tried with real processes.
 *
 * Every row begins in sync, with a client at each site that writes all the time where it is let. `preferred` is the site that `priority_station`
 * names; it is production unless the row says otherwise.
 */

export type Mode = 'witness' | 'static-priority'

/** A site is lost by SIGKILL, a way by dropping every frame on it, in both directions. Lower case: it comes back. */
export type Happening =
  | 'LINK'
  | 'PREFERRED'
  | 'OTHER'
  | 'WITNESS'
  | 'PREFERRED-WITNESS'
  | 'OTHER-WITNESS'
  | 'link'
  | 'preferred'
  | 'other'
  | 'witness'

/**
 * serves    writes are answered
 * waits     clients are connected and not answered; nothing is lost, it goes on by itself
 * refuses   clients are turned away, with the reason
 * gone      nobody is there
 */
export type Standing = 'serves' | 'waits' | 'refuses' | 'gone'

export interface Step {
  readonly happens: readonly Happening[]
  readonly preferred: Standing
  readonly other: Standing
}

/**
 * What an operator does when everything has happened, and which site serves then.
 * nothing      it is not needed
 * failover     `plain`: as it is; `force`: gives up what was written alone; `off`: with force and the statement that the preferred site is off
 * break-glass  at the host of the site that is left
 */
export type Remedy = 'nothing' | 'plain' | 'force' | 'off' | 'break-glass'

export interface Row {
  readonly mode: Mode
  /** Default: the preferred site. */
  readonly production?: 'other'
  readonly steps: readonly Step[]
  /** What becomes of a failover that states nothing: `waits`, it is taken and waits for a site; `no answer`, there is nobody to ask. */
  readonly plain: 'accepted' | 'refused' | 'waits' | 'no answer'
  readonly remedy: Remedy
  readonly why: string
}

const step = (
  happens: Happening | readonly Happening[],
  preferred: Standing,
  other: Standing,
): Step => ({ happens: typeof happens === 'string' ? [happens] : happens, preferred, other })

const witness = (
  steps: readonly Step[],
  plain: Row['plain'],
  remedy: Remedy,
  why: string,
): Row => ({ mode: 'witness', steps, plain, remedy, why })

const priority = (
  steps: readonly Step[],
  plain: Row['plain'],
  remedy: Remedy,
  why: string,
): Row => ({ mode: 'static-priority', steps, plain, remedy, why })

const otherProduces = (row: Row): Row => ({ ...row, production: 'other' })

/** In the order of the page; a row's number is its place, from 1. */
export const ROWS: readonly Row[] = [
  witness(
    [step('LINK', 'serves', 'refuses')],
    'refused',
    'nothing',
    'the witness lets production go on alone',
  ),
  witness(
    [step('PREFERRED', 'gone', 'refuses')],
    'accepted',
    'plain',
    'the DR site has every answered write; an operator or a recovery plan says when it takes over',
  ),
  witness(
    [step('OTHER', 'serves', 'gone')],
    'refused',
    'nothing',
    'the witness lets production go on alone',
  ),
  witness(
    [step('WITNESS', 'serves', 'refuses')],
    'no answer',
    'nothing',
    'writing in sync needs the other site, not the witness',
  ),
  witness(
    [step('LINK', 'serves', 'refuses'), step('WITNESS', 'waits', 'refuses')],
    'no answer',
    'nothing',
    'production goes on until its lease ends, and by itself when the witness is back',
  ),
  witness(
    [step('WITNESS', 'serves', 'refuses'), step('LINK', 'waits', 'refuses')],
    'no answer',
    'nothing',
    'nobody may decide, so nobody is answered',
  ),
  witness(
    [
      step('WITNESS', 'serves', 'refuses'),
      step('LINK', 'waits', 'refuses'),
      step('link', 'serves', 'refuses'),
    ],
    'no answer',
    'nothing',
    'with the link back both sites are in sync as before, witness or not',
  ),
  witness(
    [step('PREFERRED', 'gone', 'refuses'), step('WITNESS', 'gone', 'refuses')],
    'no answer',
    'break-glass',
    'the site that is left has everything and nobody to ask',
  ),
  witness(
    [step('WITNESS', 'serves', 'refuses'), step('PREFERRED', 'gone', 'refuses')],
    'no answer',
    'break-glass',
    'the same in the other order',
  ),
  witness(
    [
      step('WITNESS', 'serves', 'refuses'),
      step('PREFERRED', 'gone', 'refuses'),
      step('preferred', 'serves', 'refuses'),
    ],
    'no answer',
    'nothing',
    'both sites know what was, so the one that returns goes on without the witness',
  ),
  witness(
    [step('OTHER', 'serves', 'gone'), step('WITNESS', 'waits', 'gone')],
    'no answer',
    'nothing',
    'as when the link is lost first',
  ),
  witness(
    [step('WITNESS', 'serves', 'refuses'), step('OTHER', 'waits', 'gone')],
    'no answer',
    'nothing',
    'as when the witness is lost first; with the witness back production goes on alone',
  ),
  witness(
    [step(['LINK', 'PREFERRED-WITNESS'], 'waits', 'refuses')],
    'accepted',
    'plain',
    'a site that is cut off from both falls silent by itself, so the other may take over at once',
  ),
  witness(
    [step(['LINK', 'OTHER-WITNESS'], 'serves', 'refuses')],
    'refused',
    'nothing',
    'production reaches the witness and goes on alone',
  ),
  witness(
    [step('PREFERRED-WITNESS', 'serves', 'refuses'), step('LINK', 'waits', 'refuses')],
    'accepted',
    'plain',
    'in sync the witness is not missed; with the link gone too, production is cut off',
  ),
  witness(
    [step('OTHER-WITNESS', 'serves', 'refuses'), step('PREFERRED', 'gone', 'refuses')],
    'waits',
    'break-glass',
    'the witness cannot tell the DR site to take over; its operator can',
  ),
  witness(
    [step('LINK', 'serves', 'refuses'), step('PREFERRED', 'gone', 'refuses')],
    'refused',
    'force',
    'production wrote alone before it was lost: a failover gives that up, and says how much',
  ),
  witness(
    [step('PREFERRED', 'gone', 'refuses'), step('LINK', 'gone', 'refuses')],
    'accepted',
    'plain',
    'as when the preferred site alone is lost: it wrote nothing alone',
  ),
  witness(
    [
      step('OTHER', 'serves', 'gone'),
      step('PREFERRED', 'gone', 'gone'),
      step('other', 'gone', 'refuses'),
    ],
    'refused',
    'force',
    'the site that returns knows that it is behind',
  ),
  priority(
    [step('LINK', 'serves', 'refuses')],
    'refused',
    'nothing',
    'the witness lets production go on alone, as in the other mode',
  ),
  priority(
    [step('PREFERRED', 'gone', 'refuses')],
    'refused',
    'off',
    'the preferred site may be writing unseen, so somebody must state that it is off',
  ),
  priority(
    [step('OTHER', 'serves', 'gone')],
    'refused',
    'nothing',
    'the witness lets production go on alone',
  ),
  priority(
    [step('WITNESS', 'serves', 'refuses')],
    'no answer',
    'nothing',
    'writing in sync needs the other site, not the witness',
  ),
  priority(
    [step('LINK', 'serves', 'refuses'), step('WITNESS', 'serves', 'refuses')],
    'no answer',
    'nothing',
    'the preferred site goes on when its lease has ended, unwitnessed',
  ),
  priority(
    [step('WITNESS', 'serves', 'refuses'), step('LINK', 'serves', 'refuses')],
    'no answer',
    'nothing',
    'the preferred site goes on alone, unwitnessed',
  ),
  priority(
    [step('PREFERRED', 'gone', 'refuses'), step('WITNESS', 'gone', 'refuses')],
    'no answer',
    'break-glass',
    'the other site never goes on by itself',
  ),
  priority(
    [step('WITNESS', 'serves', 'refuses'), step('PREFERRED', 'gone', 'refuses')],
    'no answer',
    'break-glass',
    'the same in the other order',
  ),
  priority(
    [step('OTHER', 'serves', 'gone'), step('WITNESS', 'serves', 'gone')],
    'no answer',
    'nothing',
    'the preferred site goes on when its lease has ended, unwitnessed',
  ),
  priority(
    [step('WITNESS', 'serves', 'refuses'), step('OTHER', 'serves', 'gone')],
    'no answer',
    'nothing',
    'the preferred site goes on alone, unwitnessed',
  ),
  priority(
    [step(['LINK', 'PREFERRED-WITNESS'], 'serves', 'refuses')],
    'refused',
    'nothing',
    'the preferred site goes on unseen: this is what the statement is asked for',
  ),
  priority(
    [step(['LINK', 'OTHER-WITNESS'], 'serves', 'refuses')],
    'refused',
    'nothing',
    'the witness lets production go on alone',
  ),
  otherProduces(
    priority(
      [step('LINK', 'refuses', 'serves')],
      'refused',
      'nothing',
      'production is not the preferred site, but the witness lets it go on',
    ),
  ),
  otherProduces(
    priority(
      [step('WITNESS', 'refuses', 'serves'), step('LINK', 'refuses', 'waits')],
      'no answer',
      'nothing',
      'production is not preferred, and the preferred site does not take over by itself: nobody is answered',
    ),
  ),
  otherProduces(
    priority(
      [step('OTHER', 'refuses', 'gone')],
      'accepted',
      'plain',
      'nobody but production could have written, and it is silent',
    ),
  ),
  otherProduces(
    priority(
      [step('WITNESS', 'refuses', 'serves'), step('OTHER', 'refuses', 'gone')],
      'no answer',
      'break-glass',
      'the preferred site does not take over by itself: it did not write',
    ),
  ),
]

const HAPPENINGS: Record<Happening, string> = {
  LINK: 'link lost',
  PREFERRED: 'preferred site lost',
  OTHER: 'other site lost',
  WITNESS: 'witness lost',
  'PREFERRED-WITNESS': 'preferred site does not reach the witness',
  'OTHER-WITNESS': 'other site does not reach the witness',
  link: 'link back',
  preferred: 'preferred site back',
  other: 'other site back',
  witness: 'witness back',
}

const REMEDIES: Record<Remedy, string> = {
  nothing: '-',
  plain: 'failover',
  force: 'failover, force',
  off: 'failover, force, preferred site is off',
  'break-glass': 'break-glass',
}

export const tellHappening = (one: Happening): string => HAPPENINGS[one]

export const tellRow = ({ steps, production }: Row): string => {
  const told = steps.map(({ happens }) => happens.map(tellHappening).join(' and ')).join(', then ')
  return production === 'other' ? `other site is production; ${told}` : told
}

/** Where nobody is answered and nothing is done, what was lost comes back. */
function remedyOf({ remedy, steps }: Row): string {
  const last = steps.at(-1)
  const stands = last?.preferred !== 'serves' && last?.other !== 'serves'
  return remedy === 'nothing' && stands ? 'the witness or the other site, back' : REMEDIES[remedy]
}

/** The table of one mode, as Markdown. */
export function tableOf(mode: Mode): string[] {
  const lines = ROWS.flatMap((row, index) => {
    if (row.mode !== mode) return []
    const last = row.steps.at(-1)
    const cells = [
      String(index + 1),
      tellRow(row),
      last?.preferred ?? '',
      last?.other ?? '',
      row.plain,
      remedyOf(row),
      row.why,
    ]
    return [`| ${cells.join(' | ')} |`]
  })
  return [
    '| # | What happens, in this order | Preferred site | Other site | Plain failover | What brings service back | Why |',
    '|---|---|---|---|---|---|---|',
    ...lines,
  ]
}
