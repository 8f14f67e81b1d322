import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

/* A bucket in memory, behind HTTP, that does to requests what no real server can be made to do: answers 503 in the middle, carries a request out and loses its answer, ends an
 * answer half way. It knows no signatures; what a store needs of S3 is judged by the real server, and only trouble by this one. */

export interface Asked {
  readonly method: string
  readonly key: string
  readonly query: URLSearchParams
  /** It came with `If-None-Match: *`. */
  readonly conditional: boolean
}

export type Fate =
  | 'serve'
  /** The line is cut before anything is done. */
  | 'cut'
  /** It is carried out, and the line is cut instead of an answer. */
  | 'lost'
  /** Half of the answer's body comes. */
  | 'half'
  /** No answer comes. */
  | 'silence'
  /** Carried out without its condition. */
  | 'unconditional'
  | { readonly status: number; readonly code: string; readonly headers?: Record<string, string> }
  /** 200 with this body; nothing is done. */
  | { readonly body: string }

export interface ScriptedBucket {
  readonly endpoint: string
  readonly objects: Map<string, Buffer>
  readonly uploads: Map<string, { readonly key: string; readonly parts: Map<number, Buffer> }>
  readonly asked: Asked[]
  script: (asked: Asked) => Fate
  close(): Promise<void>
}

interface Answer {
  readonly status: number
  readonly body?: string | Buffer
  readonly headers?: Record<string, string>
}

/** `pageKeys`: keys of one page of a list. */
export async function scriptedBucket(pageKeys = 1000): Promise<ScriptedBucket> {
  const objects = new Map<string, Buffer>()
  const times = new Map<string, Date>()
  const uploads: ScriptedBucket['uploads'] = new Map()
  let uploadCount = 0
  const server = createServer((request, response) => {
    void handle(request, response)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const bucket: ScriptedBucket = {
    endpoint: `http://127.0.0.1:${port}`,
    objects,
    uploads,
    asked: [],
    script: () => 'serve',
    async close() {
      server.close()
      server.closeAllConnections()
      await once(server, 'close')
    },
  }

  async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '', bucket.endpoint)
    const chunks: Buffer[] = []
    try {
      for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk)
    } catch {
      return // its sender has gone
    }
    const asked: Asked = {
      method: request.method ?? '',
      key: decodeURIComponent(url.pathname.split('/').slice(2).join('/')),
      query: url.searchParams,
      conditional: request.headers['if-none-match'] === '*',
    }
    bucket.asked.push(asked)
    const fate = bucket.script(asked)
    if (fate === 'silence') return
    if (fate === 'cut') return void request.socket.destroy()
    if (typeof fate === 'object') {
      if ('body' in fate) return send(response, { status: 200, body: fate.body }, false)
      const body = `<Error><Code>${fate.code}</Code><Message>scripted</Message></Error>`
      return send(response, { ...fate, body }, false)
    }
    const conditional = asked.conditional && fate !== 'unconditional'
    const answer = carryOut({ ...asked, conditional }, Buffer.concat(chunks), request)
    if (fate === 'lost') return void request.socket.destroy()
    send(response, answer, fate === 'half', asked.method === 'HEAD')
  }

  function store(key: string, body: Buffer): void {
    objects.set(key, body)
    times.set(key, new Date())
  }

  function carryOut(asked: Asked, body: Buffer, request: IncomingMessage): Answer {
    const { method, key, query, conditional } = asked
    const uploadId = query.get('uploadId')
    const etag = `"${createHash('md5').update(body).digest('hex')}"`
    if (method === 'GET' && query.has('uploads')) return { status: 200, body: uploadList(uploads) }
    if (method === 'GET' && key === '') return list(query)
    if (method === 'POST' && query.has('uploads')) {
      const id = `upload-${++uploadCount}`
      uploads.set(id, { key, parts: new Map() })
      return { status: 200, body: xml('InitiateMultipartUploadResult', tag('UploadId', id)) }
    }
    if (uploadId !== null) {
      const upload = uploads.get(uploadId)
      if (upload === undefined) return { status: 404, body: error('NoSuchUpload') }
      if (method === 'DELETE') {
        uploads.delete(uploadId)
        return { status: 204 }
      }
      if (method === 'PUT') {
        upload.parts.set(Number(query.get('partNumber')), body)
        return { status: 200, headers: { etag } }
      }
      if (conditional && objects.has(key)) return { status: 412, body: error('PreconditionFailed') }
      const parts = [...upload.parts].toSorted(([a], [b]) => a - b).map(([, part]) => part)
      store(key, Buffer.concat(parts))
      uploads.delete(uploadId)
      return { status: 200, body: xml('CompleteMultipartUploadResult', tag('Key', key)) }
    }
    if (method === 'PUT') {
      if (conditional && objects.has(key)) return { status: 412, body: error('PreconditionFailed') }
      store(key, body)
      return { status: 200, headers: { etag } }
    }
    if (method === 'DELETE') {
      objects.delete(key)
      return { status: 204 }
    }
    const found = objects.get(key)
    if (found === undefined) return { status: 404, body: error('NoSuchKey') }
    const headers = { 'last-modified': (times.get(key) ?? new Date()).toUTCString(), etag }
    const range = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '')
    if (range === null) return { status: 200, body: found, headers }
    const [first, last] = [Number(range[1]), Number(range[2])]
    if (first >= found.length) return { status: 416, body: error('InvalidRange') }
    return { status: 206, body: found.subarray(first, last + 1), headers }
  }

  function list(query: URLSearchParams): Answer {
    const after = query.get('continuation-token') ?? ''
    const prefix = query.get('prefix') ?? ''
    const keys = [...objects.keys()]
      .filter((key) => key.startsWith(prefix) && key > after)
      .toSorted((a, b) => (a < b ? -1 : 1))
    const page = keys.slice(0, pageKeys)
    const more = keys.length > page.length
    const contents = page.map((key) => {
      const time = (times.get(key) ?? new Date()).toISOString()
      const size = objects.get(key)?.length ?? 0
      return `<Contents>${tag('Key', key)}${tag('Size', size)}${tag('LastModified', time)}</Contents>`
    })
    const next = more ? tag('NextContinuationToken', page.at(-1) ?? '') : ''
    return {
      status: 200,
      body: xml('ListBucketResult', `${tag('IsTruncated', more)}${next}${contents.join('')}`),
    }
  }
  return bucket
}

function send(response: ServerResponse, answer: Answer, half: boolean, headOnly = false): void {
  const body = Buffer.from(answer.body ?? '')
  response.writeHead(answer.status, { ...answer.headers, 'content-length': body.length })
  if (headOnly) return void response.end()
  if (!half || body.length < 2) return void response.end(body)
  response.write(body.subarray(0, body.length >> 1), () => response.destroy())
}

const tag = (name: string, value: string | number | boolean): string =>
  `<${name}>${value}</${name}>`
const xml = (name: string, content: string): string =>
  `<?xml version="1.0" encoding="UTF-8"?>${tag(name, content)}`
const error = (code: string): string => xml('Error', tag('Code', code))
const uploadList = (uploads: ScriptedBucket['uploads']): string =>
  xml(
    'ListMultipartUploadsResult',
    `${tag('IsTruncated', false)}${[...uploads]
      .map(
        ([id, { key }]) =>
          `<Upload>${tag('Key', key)}${tag('UploadId', id)}${tag('Initiated', new Date(0).toISOString())}</Upload>`,
      )
      .join('')}`,
  )
