// SPDX-License-Identifier: Apache-2.0

// What Prometheus gets. Loaded only where somebody asked for it; docs/operating/metrics.md says what each means.

import { statSync } from 'node:fs'
import { createServer } from 'node:http'
import { Counter, Gauge, Histogram, Registry } from 'prom-client'
import { type Journal, takeCensus } from '#allocator'
import type { SentRequest } from '#openstack'
import type { CloudSessions } from '#plugins'
import type { EndedCall } from './calls.ts'
import { watchUnserved } from './unserved.ts'

export type Metrics = {
  /** A request to a cloud that was sent. */
  sent(cloud: string, request: SentRequest): void
  begun(attachment: string): void
  ended(call: EndedCall): void
  /** Serves them over HTTP at `/metrics`, with what the journal and the sessions say at that moment. @throws the system's error */
  serve(address: MetricsAddress, facts: MetricsFacts): Promise<AsyncDisposable>
}

export type MetricsFacts = {
  readonly journal: Journal
  readonly clouds: CloudSessions
  /** Told why a page could not be made; whoever reads it need not know. */
  readonly warn: (error: unknown) => void
}

export type MetricsAddress = { readonly host: string; readonly port: number }

const CLOUD_S = [0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60]
const WAIT_S = [0.001, 0.01, 0.1, 0.5, 1, 5, 15, 60]
const CALL_S = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 1, 2.5, 5, 15, 60, 120]
const SERVICES = { neutron: 'network', nova: 'compute' } as const
const LEVELS = { normal: 'normal', 'allocate-only': 'L1', 'serve-held': 'L0' } as const
const REQUEST_MS = 5_000
const CONNECTIONS_MAX = 8

export function createMetrics(): Metrics {
  const registry = new Registry()
  const registers = [registry]
  const unserved = watchUnserved()
  const requests = new Histogram({
    name: 'mooring_cloud_request_seconds',
    help: 'Requests that were sent to a cloud, by operation and outcome (HTTP status, or what came instead of an answer)',
    labelNames: ['cloud', 'service', 'operation', 'outcome'] as const,
    buckets: CLOUD_S,
    registers,
  })
  const waits = new Histogram({
    name: 'mooring_cloud_wait_seconds',
    help: 'How long requests waited for their turn before they were sent',
    labelNames: ['cloud', 'service'] as const,
    buckets: WAIT_S,
    registers,
  })
  const throttled = new Counter({
    name: 'mooring_cloud_throttled_total',
    help: 'Answers 429',
    labelNames: ['cloud', 'service'] as const,
    registers,
  })
  const calls = new Histogram({
    name: 'mooring_call_seconds',
    help: 'CNI calls by plugin and outcome (0, or the code of the error)',
    labelNames: ['command', 'type', 'code'] as const,
    buckets: CALL_S,
    registers,
  })

  return {
    sent(cloud, { service, name, outcome, ms, waitedMs }) {
      requests.observe({ cloud, service, operation: name, outcome: String(outcome) }, ms / 1000)
      waits.observe({ cloud, service }, waitedMs / 1000)
      if (outcome === 429) throttled.inc({ cloud, service })
    },
    begun: unserved.begun,
    ended({ command, type, attachment, code, ms }) {
      calls.observe({ command, type, code: String(code) }, ms / 1000)
      if (command === 'ADD' || command === 'DEL') unserved.ended(attachment, command === 'DEL' || code === 0)
    },
    async serve(address, { journal, clouds, warn }) {
      const collect = observeNode({ registry, journal, clouds, oldestAddMs: unserved.oldestMs })
      return await listen(
        address,
        async () => {
          collect()
          return { type: registry.contentType, text: await registry.metrics() }
        },
        warn,
      )
    },
  }
}

/** Gauges that are set when somebody asks. @returns sets them */
function observeNode(facts: {
  registry: Registry
  journal: Journal
  clouds: CloudSessions
  oldestAddMs: () => number
}): () => void {
  const { registry, journal, clouds, oldestAddMs } = facts
  const gauge = <const Label extends string>(name: string, help: string, ...labelNames: Label[]) =>
    new Gauge({ name: `mooring_${name}`, help, labelNames, registers: [registry] })
  const levels = gauge('cloud_level', '1 for the level at which the cloud is served', 'cloud', 'service', 'level')
  const breakers = gauge('cloud_breaker', '1 for the state of the breaker', 'cloud', 'service', 'state')
  const speeds = gauge('cloud_requests_per_second_max', 'Requests per second that may be sent now', 'cloud')
  const addresses = gauge('addresses', 'Addresses of Neutron ports', 'port', 'subnet', 'state')
  const objects = gauge('objects', 'Leases that are ports or NICs of their own', 'pool', 'state')
  const attachments = gauge('attachments', 'Interfaces of containers', 'state')
  const release = gauge('oldest_release_seconds', 'Age of the oldest release that the cloud has not carried out')
  const add = gauge('oldest_unserved_add_seconds', 'Age of the oldest ADD without success')
  const journalBytes = gauge('journal_bytes', 'Size of the journal', 'file')

  return () => {
    for (const each of [levels, breakers, speeds, addresses, objects, attachments]) each.reset()
    for (const session of clouds.list()) {
      const cloud = session.cloud.name
      for (const [service, type] of Object.entries(SERVICES)) {
        const now = LEVELS[session.health(type).level]
        for (const level of Object.values(LEVELS)) levels.set({ cloud, service, level }, level === now ? 1 : 0)
      }
      for (const service of ['keystone', 'neutron', 'nova'] as const)
        for (const state of ['closed', 'open', 'probing'] as const)
          breakers.set({ cloud, service, state }, session.gate.breakerState(service) === state ? 1 : 0)
      speeds.set({ cloud }, session.gate.perSecond())
    }
    const census = takeCensus(journal)
    for (const { count, ...labels } of census.addresses) addresses.set(labels, count)
    for (const { count, ...labels } of census.objects) objects.set(labels, count)
    for (const { count, ...labels } of census.attachments) attachments.set(labels, count)
    release.set(census.oldestReleaseMs === undefined ? 0 : Math.max(0, (Date.now() - census.oldestReleaseMs) / 1000))
    add.set(oldestAddMs() / 1000)
    journalBytes.set({ file: 'journal' }, sizeOf(journal.path))
    journalBytes.set({ file: 'wal' }, sizeOf(`${journal.path}-wal`))
  }
}

const sizeOf = (path: string): number => statSync(path, { throwIfNoEntry: false })?.size ?? 0

async function listen(
  { host, port }: MetricsAddress,
  page: () => Promise<{ type: string; text: string }>,
  warn: (error: unknown) => void,
): Promise<AsyncDisposable> {
  const server = createServer({ requestTimeout: REQUEST_MS, headersTimeout: REQUEST_MS }, async (request, response) => {
    if (request.method !== 'GET' || request.url !== '/metrics')
      return void response.writeHead(404).end('see /metrics\n')
    try {
      const { type, text } = await page()
      response.writeHead(200, { 'content-type': type }).end(text)
    } catch (error) {
      // The journal may be busy, or its disk full.
      warn(error)
      response.writeHead(500).end('cannot read the journal\n')
    }
  })
  server.maxConnections = CONNECTIONS_MAX
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, host, resolve)
  })
  // A connection that the kernel gives up while it is accepted.
  server.on('error', warn)
  return {
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      await new Promise(resolve => server.close(resolve))
    },
  }
}
