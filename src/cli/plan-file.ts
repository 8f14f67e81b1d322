import type { PlanDocument, PlanProbe, PlanScript, PlanSettings } from '#client/recovery.ts'
import { usageError } from './usage.ts'

/* Recovery plans as files that people write:
 *
 *     # the database first, and somebody looks at it
 *     wave
 *       start db
 *     wave pause "Compare the last order with the shop's mail."
 *       start app-1 app-2
 *     instance db
 *       probe tcp 5432 within 120
 *       probe command /usr/bin/pg_isready
 *       not-ready stop
 *       script-before move-address within 30
 *     instance app-2
 *       after app-1
 *
 * A line is one statement of words; a word with blanks, or with a # at its beginning, stands in double quotes, with \" and \\ inside. What a
 * line belongs to is the last `wave` or `instance` above it; indenting is for the eye. A file that begins with { is taken as JSON, in the
 * form of the API.
 */

export function parsePlan(text: string): PlanDocument {
  if (text.trimStart().startsWith('{')) return parseJson(text)
  const waves: { instances: string[]; pause?: string }[] = []
  const instances: Record<string, PlanSettings> = {}
  let into:
    | { kind: 'wave'; wave: { instances: string[] } }
    | { kind: 'instance'; name: string }
    | null = null
  for (const [index, line] of text.split('\n').entries()) {
    const wrong = (why: string) => usageError(`line ${index + 1} of the plan: ${why}`)
    const words = wordsOf(line, wrong)
    const [word, ...rest] = words
    if (word === undefined) continue
    if (word === 'wave') {
      const [pause, reason, ...more] = rest
      if (pause !== undefined && (pause !== 'pause' || reason === undefined || more.length > 0)) {
        throw wrong('accepted: wave, or wave pause "WHAT IS TO BE DONE FIRST"')
      }
      const wave = { instances: [], ...(reason === undefined ? {} : { pause: reason }) }
      waves.push(wave)
      into = { kind: 'wave', wave }
      continue
    }
    if (word === 'instance') {
      const [name, ...more] = rest
      if (name === undefined || more.length > 0) throw wrong('accepted: instance NAME')
      if (Object.hasOwn(instances, name)) throw wrong(`instance ${name} stands above already`)
      instances[name] = {}
      into = { kind: 'instance', name }
      continue
    }
    if (word === 'start') {
      if (into?.kind !== 'wave') throw wrong('`start` belongs below a `wave`')
      if (rest.length === 0) throw wrong('accepted: start NAME...')
      into.wave.instances.push(...rest)
      continue
    }
    if (into?.kind !== 'instance')
      throw wrong(`${word} is not known here: write \`instance NAME\` above`)
    const settings = instances[into.name] ?? {}
    instances[into.name] = setting(settings, word, rest, wrong)
  }
  return { waves, instances }
}

type Wrong = (why: string) => Error

function setting(settings: PlanSettings, word: string, rest: string[], wrong: Wrong): PlanSettings {
  switch (word) {
    case 'after':
      if (rest.length === 0) throw wrong('accepted: after NAME...')
      return { ...settings, after: [...(settings.after ?? []), ...rest] }
    case 'not-ready': {
      const policy = rest.length === 1 ? POLICIES.get(rest[0] ?? '') : undefined
      if (policy === undefined) throw wrong('accepted: not-ready go-on, stop or pause')
      return { ...settings, not_ready: policy }
    }
    case 'script-before':
      return { ...settings, script_before: script(rest, wrong) }
    case 'script-after':
      return { ...settings, script_after: script(rest, wrong) }
    case 'probe': {
      const { words, within } = limitOf(rest, wrong)
      const planned = { probe: probe(words, wrong), ...within }
      return { ...settings, probes: [...(settings.probes ?? []), planned] }
    }
    default:
      throw wrong(
        `${word} is not known, accepted: wave, start, instance, after, probe, not-ready, script-before, script-after`,
      )
  }
}

const POLICIES: ReadonlyMap<string, NonNullable<PlanSettings['not_ready']>> = new Map([
  ['go-on', 'go_on'],
  ['stop', 'stop'],
  ['pause', 'pause'],
])

/** `within SECONDS` at the end of a statement. */
function limitOf(words: string[], wrong: Wrong) {
  if (words.at(-2) !== 'within') return { words, within: {} }
  return { words: words.slice(0, -2), within: { timeout_s: whole(words.at(-1), wrong) } }
}

function whole(text: string | undefined, wrong: Wrong): number {
  if (text === undefined || !/^[0-9]{1,9}$/.test(text)) {
    throw wrong(`${text ?? 'nothing'} is not accepted, accepted: a whole number`)
  }
  return Number(text)
}

function script(rest: string[], wrong: Wrong): PlanScript {
  const { words, within } = limitOf(rest, wrong)
  const [name, ...more] = words
  if (name === undefined || more.length > 0) throw wrong('accepted: NAME, or NAME within SECONDS')
  return { script: name, ...within }
}

function probe([kind = '', ...rest]: string[], wrong: Wrong): PlanProbe {
  switch (kind) {
    case 'boot':
      if (rest.length > 1) throw wrong('accepted: probe boot, or probe boot "MARKER"')
      return { kind, ...(rest[0] === undefined ? {} : { marker: rest[0] }) }
    case 'tcp':
      if (rest.length !== 1) throw wrong('accepted: probe tcp PORT')
      return { kind, port: whole(rest[0], wrong) }
    case 'http': {
      const [port, path, ...more] = rest
      const options = new Map<string, string>()
      for (let at = 0; at < more.length; at += 2) options.set(more[at] ?? '', more[at + 1] ?? '')
      const known = [...options.keys()].every((one) => one === 'status' || one === 'contains')
      if (path === undefined || more.length % 2 === 1 || !known) {
        throw wrong('accepted: probe http PORT PATH, then status NUMBER and contains TEXT')
      }
      const [status, contains] = [options.get('status'), options.get('contains')]
      return {
        kind,
        port: whole(port, wrong),
        path,
        ...(status === undefined ? {} : { status: whole(status, wrong) }),
        ...(contains === undefined ? {} : { contains }),
      }
    }
    case 'command':
      if (rest.length === 0) throw wrong('accepted: probe command PROGRAM ARGUMENT...')
      return { kind, command: rest }
    default:
      throw wrong(`probe ${kind} is not known, accepted: boot, tcp, http, command`)
  }
}

function wordsOf(line: string, wrong: Wrong): string[] {
  const words: string[] = []
  let at = 0
  for (;;) {
    while (/\s/.test(line[at] ?? '')) at++
    if (at >= line.length || line[at] === '#') return words
    if (line[at] !== '"') {
      const word = /^[^\s"]+/.exec(line.slice(at))?.[0] ?? ''
      words.push(word)
      at += word.length
    } else {
      const quoted = /^"((?:[^"\\]|\\["\\])*)"/.exec(line.slice(at))
      if (quoted === null) throw wrong('a quotation is not ended')
      words.push((quoted[1] ?? '').replaceAll(/\\(["\\])/g, '$1'))
      at += quoted[0].length
    }
    if (at < line.length && !/\s/.test(line[at] ?? '')) throw wrong('words are separated by blanks')
  }
}

/** Its form is checked by the server. */
function parseJson(text: string): PlanDocument {
  try {
    return JSON.parse(text) as PlanDocument
  } catch {
    throw usageError('the plan begins with { and is not JSON')
  }
}

// ---------------------------------------------------------------- and back

/** The same plan as lines of such a file. `names`: of the instances, by id. */
export function planLines(
  { waves = [], instances = {} }: PlanDocument,
  names: Readonly<Record<string, string>>,
): string[] {
  const all = Object.values(names)
  const called = (id: string) => {
    const name = names[id]
    return word(name === undefined || all.filter((one) => one === name).length > 1 ? id : name)
  }
  const within = ({ timeout_s }: { timeout_s?: number }) =>
    timeout_s === undefined ? '' : ` within ${timeout_s}`
  return [
    ...waves.flatMap((wave) => [
      wave.pause === undefined ? 'wave' : `wave pause ${word(wave.pause)}`,
      ...(wave.instances.length === 0 ? [] : [`  start ${wave.instances.map(called).join(' ')}`]),
    ]),
    ...Object.entries(instances).flatMap(([id, one]) => [
      `instance ${called(id)}`,
      ...((one.after ?? []).length === 0 ? [] : [`  after ${one.after?.map(called).join(' ')}`]),
      ...(one.probes ?? []).map(
        (planned) => `  probe ${probeText(planned.probe)}${within(planned)}`,
      ),
      ...(one.not_ready === undefined ? [] : [`  not-ready ${one.not_ready.replace('_', '-')}`]),
      ...(one.script_before === undefined
        ? []
        : [`  script-before ${word(one.script_before.script)}${within(one.script_before)}`]),
      ...(one.script_after === undefined
        ? []
        : [`  script-after ${word(one.script_after.script)}${within(one.script_after)}`]),
    ]),
  ]
}

function probeText(one: PlanProbe): string {
  switch (one.kind) {
    case 'boot':
      return one.marker === undefined ? 'boot' : `boot ${word(one.marker)}`
    case 'tcp':
      return `tcp ${one.port}`
    case 'http': {
      const status = one.status === undefined ? '' : ` status ${one.status}`
      const contains = one.contains === undefined ? '' : ` contains ${word(one.contains)}`
      return `http ${one.port} ${word(one.path)}${status}${contains}`
    }
    case 'command':
      return `command ${one.command.map(word).join(' ')}`
  }
}

const word = (text: string): string =>
  /^[^\s"\\#]+$/.test(text) && text !== 'within' ? text : `"${text.replaceAll(/(["\\])/g, '\\$1')}"`
