import { Fault, fault } from './fault.ts'

/* Options of a process, as a table.
 *
 * One table per process names every option once: its key in the file, and from the key its environment variable and its
 * flag; its type with the accepted range; unit; default; one sentence of meaning. Parsing, refusals and the page
 * docs/operating/configuration.md all come from the table, so they cannot disagree.
 *
 * Sources, later ones win: default, file (JSON), environment, flag. A value is checked in whichever source it stands,
 * also when a stronger source hides it: a wrong file should not start to matter on the day a flag is dropped.
 * All problems are reported at once.
 */

export const OPTION_REFUSED = fault({
  code: 'OPTION_REFUSED',
  retry: 'never',
  text: 'The process did not start, nothing was changed.',
  hint: 'Every option is listed in docs/operating/configuration.md.',
})

/** One option. `parse` gets text (environment, flag) or a JSON value (file) and returns the value or a reason. */
export interface Option<T> {
  /** What a reader may write, as a phrase that ends the sentence "accepted: ...". */
  readonly accepts: string
  /** Unit of the number, shown in the documentation: ms, bytes, bytes/s. */
  readonly unit?: string
  readonly about: string
  /** Absent: the option is required, unless `optional`. */
  readonly default?: T
  /** How the default is written in the documentation when it is not a plain value. */
  readonly defaultText?: string
  readonly optional?: boolean
  /** The value never appears in refusals. */
  readonly secret?: boolean
  /** A relative value in the file is meant relative to the file. */
  readonly isPath?: boolean
  parse(raw: unknown): Parsed<T>
}

export type Parsed<T> = { readonly ok: true; readonly value: T } | { readonly ok: false }

/** Keys are the names in the configuration file; a dot nests (`pki.ca` is `{"pki":{"ca":...}}`). */
export type OptionTable = Readonly<Record<string, Option<unknown>>>

export type OptionValues<Table extends OptionTable> = {
  readonly [Key in keyof Table]: Table[Key] extends Option<infer Value> ? Value : never
}

export interface Sources {
  /** The parsed JSON of `--config FILE`, and the name to show for it. */
  readonly file?: {
    readonly name: string
    readonly content: unknown
    /** Makes a path in the file absolute. */
    resolvePath?(path: string): string
  }
  readonly env?: Readonly<Record<string, string | undefined>>
  /** By option key. */
  readonly flags?: Readonly<Record<string, unknown>>
  /** Names of variables beginning with HOLDFAST_ that belong to other parts and are no mistake here. */
  readonly foreignEnv?: readonly string[]
}

/** `peerSilenceMs` → `HOLDFAST_PEER_SILENCE_MS`, `pki.ca` → `HOLDFAST_PKI_CA`. */
export const envName = (key: string): string =>
  `HOLDFAST_${words(key)
    .map((word) => word.toUpperCase())
    .join('_')}`

/** `peerSilenceMs` → `--peer-silence-ms`. */
export const flagName = (key: string): string => `--${words(key).join('-')}`

function words(key: string): string[] {
  return key
    .replaceAll('.', '-')
    .replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)
    .split('-')
}

/** Values of every option, or a Fault OPTION_REFUSED that lists all that is wrong: option, source, what is accepted. */
export function resolveOptions<Table extends OptionTable>(
  table: Table,
  sources: Sources,
): OptionValues<Table> {
  const keys = Object.keys(table)
  const problems: string[] = []
  const found = new Map<string, unknown>()

  const take = (key: string, raw: unknown, source: string, inFile?: Sources['file']) => {
    const option = table[key] as Option<unknown>
    const parsed = option.parse(raw)
    if (parsed.ok) {
      const { value } = parsed
      const isPath = option.isPath === true && typeof value === 'string'
      found.set(key, isPath ? (inFile?.resolvePath?.(value) ?? value) : value)
    } else {
      const shown = option.secret === true ? 'the value given' : JSON.stringify(raw)
      problems.push(`${key} (${source}): ${shown} is not accepted, accepted: ${option.accepts}`)
    }
  }

  if (sources.file !== undefined) {
    const { name, content } = sources.file
    if (!isRecord(content)) problems.push(`${name}: not a JSON object`)
    else {
      for (const [key, raw] of flatten(content, keys)) {
        if (keys.includes(key)) take(key, raw, `file ${name}`, sources.file)
        else problems.push(`${key} (file ${name}): unknown option${suggestion(key, keys)}`)
      }
    }
  }
  if (sources.env !== undefined) {
    const byEnv = new Map(keys.map((key) => [envName(key), key]))
    for (const [variable, raw] of Object.entries(sources.env)) {
      const key = byEnv.get(variable)
      if (key !== undefined) take(key, raw, `environment ${variable}`)
      else if (isOurVariable(variable) && !(sources.foreignEnv ?? []).includes(variable)) {
        problems.push(
          `${variable} (environment): unknown option${suggestion(variable, [...byEnv.keys()])}`,
        )
      }
    }
  }
  for (const [key, raw] of Object.entries(sources.flags ?? {})) {
    if (raw === undefined) continue
    if (keys.includes(key)) take(key, raw, `flag ${flagName(key)}`)
    else problems.push(`${flagName(key)}: unknown option${suggestion(key, keys)}`)
  }

  const values: Record<string, unknown> = {}
  for (const key of keys) {
    const option = table[key] as Option<unknown>
    if (found.has(key)) values[key] = found.get(key)
    else if (option.default !== undefined || option.optional === true) values[key] = option.default
    else if (!problems.some((problem) => problem.startsWith(`${key} (`))) {
      problems.push(
        `${key}: required and not given (file key ${key}, ${envName(key)} or ${flagName(key)}), accepted: ${option.accepts}`,
      )
    }
  }
  if (problems.length > 0) {
    throw new Fault(OPTION_REFUSED, problems.join('; '), { problems })
  }
  return values as OptionValues<Table>
}

/** HOLDFAST_TEST_ is reserved for the test programs and never an option. */
const isOurVariable = (variable: string): boolean =>
  variable.startsWith('HOLDFAST_') && !variable.startsWith('HOLDFAST_TEST_')

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** Descends into an object only when some known key lies below it, so a stray object is named as a whole. */
function flatten(
  content: Record<string, unknown>,
  keys: readonly string[],
  prefix = '',
): [string, unknown][] {
  return Object.entries(content).flatMap(([name, value]): [string, unknown][] => {
    const key = prefix + name
    return isRecord(value) && keys.some((known) => known.startsWith(`${key}.`))
      ? flatten(value, keys, `${key}.`)
      : [[key, value]]
  })
}

function suggestion(wrong: string, known: readonly string[]): string {
  const best = nearest(wrong, known)
  return best === undefined ? '' : `, did you mean ${best}?`
}

/** The known name with the fewest edits from `wrong`, if they are few enough to be a slip. */
export function nearest(wrong: string, known: readonly string[]): string | undefined {
  let best: string | undefined
  let bestEdits = Math.max(2, Math.floor(wrong.length / 3)) + 1
  for (const name of known) {
    const edits = editDistance(wrong.toLowerCase(), name.toLowerCase())
    if (edits < bestEdits) {
      best = name
      bestEdits = edits
    }
  }
  return best
}

function editDistance(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, index) => index)
  for (let row = 1; row <= a.length; row++) {
    const current = [row]
    for (let column = 1; column <= b.length; column++) {
      const substitution = (previous[column - 1] ?? 0) + (a[row - 1] === b[column - 1] ? 0 : 1)
      current.push(
        Math.min(substitution, (previous[column] ?? 0) + 1, (current[column - 1] ?? 0) + 1),
      )
    }
    previous = current
  }
  return previous[b.length] ?? 0
}

// ---------------------------------------------------------------- kinds of options

interface Common<T> {
  readonly about: string
  readonly default?: T
  readonly defaultText?: string
  readonly unit?: string
  readonly secret?: boolean
}

const accept = <T>(value: T): Parsed<T> => ({ ok: true, value })
const REFUSE = { ok: false } as const

export function textOption(
  spec: Common<string> & { readonly accepts: string; readonly pattern: RegExp },
): Option<string> {
  const { pattern, ...rest } = spec
  return {
    ...rest,
    parse: (raw) => (typeof raw === 'string' && pattern.test(raw) ? accept(raw) : REFUSE),
  }
}

export function integerOption(
  spec: Common<number> & { readonly min: number; readonly max: number },
): Option<number> {
  const { min, max, ...rest } = spec
  return {
    ...rest,
    accepts: `a whole number from ${min} to ${max}`,
    parse(raw) {
      const text = typeof raw === 'number' ? String(raw) : raw
      if (typeof text !== 'string' || !/^-?[0-9]+$/.test(text)) return REFUSE
      const value = Number(text)
      return value >= min && value <= max ? accept(value) : REFUSE
    },
  }
}

export function booleanOption(spec: Common<boolean>): Option<boolean> {
  return {
    ...spec,
    accepts: 'true or false',
    parse(raw) {
      if (raw === true || raw === 'true') return accept(true)
      return raw === false || raw === 'false' ? accept(false) : REFUSE
    },
  }
}

export function choiceOption<T extends string>(
  spec: Common<T> & { readonly choices: readonly T[] },
): Option<T> {
  const { choices, ...rest } = spec
  return {
    ...rest,
    accepts: `one of ${choices.join(', ')}`,
    parse(raw) {
      const choice = choices.find((one) => one === raw)
      return choice === undefined ? REFUSE : accept(choice)
    },
  }
}

/** A list: a JSON array in the file, comma-separated elsewhere. */
export function listOption(
  spec: Common<readonly string[]> & { readonly item: string; readonly pattern: RegExp },
): Option<readonly string[]> {
  const { item, pattern, ...rest } = spec
  return {
    ...rest,
    accepts: `one or more of: ${item} (comma-separated, or a JSON array in the file), each once`,
    parse(raw) {
      const items: unknown = typeof raw === 'string' ? raw.split(',') : raw
      if (!Array.isArray(items) || items.length === 0) return REFUSE
      const texts: string[] = []
      for (const one of items as unknown[]) {
        if (typeof one !== 'string' || !pattern.test(one) || texts.includes(one)) return REFUSE
        texts.push(one)
      }
      return accept(texts)
    },
  }
}

export interface Address {
  readonly host: string
  readonly port: number
}

/** Where to listen. Port 0 lets the system choose; the process prints what it got in its ready line. */
export function addressOption(spec: Common<Address>): Option<Address> {
  return {
    ...spec,
    accepts:
      'HOST:PORT with an IPv4 address, a host name or a bracketed IPv6 address, port 0-65535',
    parse(raw) {
      const address = typeof raw === 'string' ? parseAddress(raw) : undefined
      return address === undefined ? REFUSE : accept(address)
    },
  }
}

export function parseAddress(text: string): Address | undefined {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9.-]+)):([0-9]{1,5})$/.exec(text)
  const host = match?.[1] ?? match?.[2]
  const port = Number(match?.[3])
  return host === undefined || !(port <= 65_535) ? undefined : { host, port }
}

export const formatAddress = ({ host, port }: Address): string =>
  host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`

/** True for addresses that only this machine can reach. */
export const isLoopback = (host: string): boolean =>
  host === 'localhost' || host === '::1' || /^127(\.[0-9]{1,3}){3}$/.test(host)

/** True for addresses that mean "every interface" and name no machine. */
export const isWildcard = (host: string): boolean => host === '0.0.0.0' || host === '::'

/** A path on this machine: relative to the configuration file when it stands there, else to the working directory. */
export function pathOption(spec: Common<string>): Option<string> {
  return {
    ...spec,
    isPath: true,
    accepts: 'a path',
    parse: (raw) =>
      typeof raw === 'string' && raw !== '' && !raw.includes('\0') ? accept(raw) : REFUSE,
  }
}

/** A URL with one of the given schemes and no path, query or trailing slash kept. */
export function originOption(
  spec: Common<string> & { readonly schemes: readonly string[] },
): Option<string> {
  const { schemes, ...rest } = spec
  return {
    ...rest,
    accepts: `a URL like ${schemes.map((scheme) => `${scheme}://host:port`).join(' or ')} without a path`,
    parse(raw) {
      if (typeof raw !== 'string' || !URL.canParse(raw)) return REFUSE
      const url = new URL(raw)
      const plain =
        url.pathname === '/' && url.search === '' && url.hash === '' && url.username === ''
      return schemes.includes(url.protocol.slice(0, -1)) && plain ? accept(url.origin) : REFUSE
    },
  }
}

/** Makes any option one that may be left out. */
export function optional<T>(option: Option<T>): Option<T | undefined> {
  return { ...option, optional: true } as Option<T | undefined>
}

/** What regions, sites and agents may be called, everywhere alike. */
export const NAME = /^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?$/
export const NAME_ACCEPTS =
  '1 to 64 letters, digits, dots, underscores and hyphens, letter or digit at both ends'
