// SPDX-License-Identifier: Apache-2.0

// Random schedules of what a runtime, an operator, a cloud and a bad day do to a node: made from a seed, so that the same
// seed is the same schedule, and cut down to the few steps that matter when one fails. Pure. Small code of our own, because
// the steps of hundreds of schedules run side by side and meet real time-outs, which property libraries do not foresee.

import type { Injection } from '#simulator'
import type { NicComes } from './kernel.ts'
import type { LinkWork } from './trouble.ts'

/** A moment at which a process is killed: before or after the Nth thing of a kind that it does, or while the cloud works on it. */
export type Fuse = {
  readonly at: 'journal' | 'kernel' | 'cloud'
  readonly count: number
  readonly moment: 'before' | 'during' | 'after'
}

export type Step =
  | { readonly step: 'add'; readonly pod: number }
  /** `gone`: the namespace went before; `none`: CNI_NETNS is empty. */
  | { readonly step: 'del'; readonly pod: number; readonly sandbox: 'there' | 'gone' | 'none' }
  /** The container is gone, and its runtime does not say so. */
  | { readonly step: 'forget'; readonly pod: number }
  /** An ADD whose runtime does not wait any longer; then the DEL that follows a failed ADD, or none. */
  | { readonly step: 'abandon'; readonly pod: number; readonly afterMs: number; readonly del: boolean }
  /** `old`: the list was made before the last ADD. */
  | { readonly step: 'gc'; readonly list: 'valid' | 'old' | 'empty' | 'absent' }
  | { readonly step: 'together'; readonly parts: readonly Step[] }
  | { readonly step: 'fault'; readonly injection: Injection }
  | { readonly step: 'restart' }
  | { readonly step: 'kill'; readonly fuse: Fuse; readonly of: Step }
  /** The agent is down; DELs are promised meanwhile. */
  | { readonly step: 'down'; readonly pods: readonly number[] }
  | { readonly step: 'reboot' }
  /** An operator puts an address or NIC of his own there, takes it off again, or takes an address that a pod has. */
  | { readonly step: 'hand'; readonly does: HandDoes }
  /** The next NIC that is attached does not show up at once. */
  | { readonly step: 'plug'; readonly comes: NicComes }
  /** The kernel fails to make or to take away the next so many links. */
  | ({ readonly step: 'refuse' } & Readonly<Record<LinkWork, number>>)
  /** So much time passes for what is recorded. */
  | { readonly step: 'pass'; readonly seconds: number }

export type HandDoes = 'add' | 'remove' | 'take'
/** What pods get: addresses alone, or a NIC each. */
export type Gives = 'addresses' | 'nics'

export type Schedule = {
  readonly seed: number
  /** One process that stays, or one per call. */
  readonly process: 'agent' | 'perCall'
  readonly reserve: number
  readonly coolDownMs: number
  /** Addresses that pods can have in all. */
  readonly addresses: number
  readonly steps: readonly Step[]
}

/** Random numbers below `n` from a seed (mulberry32). */
export function randomFrom(seed: number): (n: number) => number {
  let state = seed >>> 0
  return n => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * n)
  }
}

const PODS = 6

/** The schedule of a seed. */
export function makeSchedule(seed: number, gives: Gives): Schedule {
  const random = randomFrom(seed)
  const pick = <T>(...from: T[]): T => from[random(from.length)]!
  const process = pick('agent', 'agent', 'agent', 'perCall')
  const count = 4 + random(7)
  return {
    seed,
    process,
    reserve: process === 'agent' ? pick(0, 0, 1, 3) : 0,
    coolDownMs: pick(0, 0, 40),
    addresses: pick(4, 6, 30, 30),
    steps: Array.from({ length: count }, () => makeStep(random, process, gives)),
  }
}

function makeStep(random: (n: number) => number, process: Schedule['process'], gives: Gives): Step {
  const pick = <T>(...from: T[]): T => from[random(from.length)]!
  const pod = () => random(PODS)
  const add = (): Step => ({ step: 'add', pod: pod() })
  const del = (): Step => ({ step: 'del', pod: pod(), sandbox: pick('there', 'there', 'gone', 'none') })
  const abandon = (): Step => ({ step: 'abandon', pod: pod(), afterMs: pick(0, 1, 5, 20, 60), del: random(3) > 0 })
  const gc = (): Step => ({ step: 'gc', list: pick('valid', 'valid', 'old', 'empty', 'absent') })
  const call = (): Step => pick(add, add, add, del, del, abandon, gc)()
  const at = random(100)
  if (at < 24) return add()
  if (at < 34) return del()
  if (at < 36) return { step: 'refuse', attach: pick(0, 0, 1, 2), detach: pick(0, 1, 2, 4) }
  if (at < 38) return { step: 'forget', pod: pod() }
  if (at < 43) return abandon()
  if (at < 49) return gc()
  // A cloud is asked for NICs less often than for addresses: so more of it goes wrong.
  if (at < (gives === 'nics' ? 56 : 64)) return { step: 'together', parts: Array.from({ length: 2 + random(5) }, call) }
  if (at < 78)
    return gives === 'nics' && random(3) > 0 ? makeNicFault(random) : { step: 'fault', injection: makeFault(random) }
  if (at < 81) return { step: 'restart' }
  if (at < 92) return { step: 'kill', fuse: makeFuse(random, gives), of: call() }
  if (at < 94) return process === 'agent' ? { step: 'down', pods: [pod(), pod()] } : del()
  if (at < 95) return { step: 'reboot' }
  if (at < 98) return { step: 'hand', does: pick('add', 'add', 'remove', 'take') }
  return { step: 'pass', seconds: pick(10, 60, 400) }
}

function makeFuse(random: (n: number) => number, gives: Gives): Fuse {
  const at = (['journal', 'journal', 'kernel', 'cloud', 'cloud'] as const)[random(5)]!
  const moment = (['before', 'during', 'after'] as const)[random(3)]!
  return { at, moment, count: 1 + random(THINGS_MAX[gives][at]) }
}

/** Things of a kind that an ADD does, about. */
const THINGS_MAX = {
  addresses: { journal: 14, kernel: 5, cloud: 8 },
  nics: { journal: 14, kernel: 9, cloud: 12 },
} as const

/** What goes wrong with Nova and with hot-plugging. */
function makeNicFault(random: (n: number) => number): Step {
  const pick = <T>(...from: T[]): T => from[random(from.length)]!
  if (random(3) === 0) return { step: 'plug', comes: pick<NicComes>({ afterMs: 1 + random(400) }, 'never') }
  const where = { path: 'os-interface', method: pick('POST', 'POST', 'DELETE', 'GET'), skip: pick(0, 0, 1) }
  // As Nova does for a server whose host does not answer: accepted, and nothing happens.
  const isDropped = where.method === 'DELETE' && random(3) === 0
  const what = pick<Injection>(
    { act: 'answer', status: 500 },
    { act: 'answer', status: 409 },
    { act: 'answer', status: 503, times: 2 },
    { act: 'answer-after', status: 500 },
    { act: 'answer-after', status: 504 },
    { act: 'cut' },
    { act: 'cut-after' },
    { act: 'cut-after', times: 3 },
    { act: 'delay', latencyMs: 1 + random(120) },
  )
  return { step: 'fault', injection: { ...where, ...(isDropped ? { act: 'answer', status: 202 } : what) } }
}

function makeFault(random: (n: number) => number): Injection {
  const pick = <T>(...from: T[]): T => from[random(from.length)]!
  const where: Partial<Injection> = pick<Partial<Injection>>(
    {},
    { path: '/ports/' },
    { path: '/ports/', method: 'PUT' },
    { path: '/ports/', method: 'PUT' },
    { path: '/floatingips' },
  )
  const what = pick<Injection>(
    { act: 'answer', status: 500 },
    { act: 'answer', status: 429, headers: { 'retry-after': '0' } },
    { act: 'answer', status: 409 },
    { act: 'answer', status: 503, times: 2 },
    { act: 'answer-after', status: 504 },
    { act: 'cut' },
    { act: 'cut-after' },
    { act: 'cut-after' },
    { act: 'delay', latencyMs: 1 + random(120) },
    { act: 'stale', ageMs: pick(20, 200, 60_000), times: pick(1, 1, 2, 9) },
    { act: 'partial', missing: 1 + random(3), from: pick('start', 'end'), times: pick(1, 1, 2, 9) },
  )
  const isRead = what.act === 'stale' || what.act === 'partial'
  return { ...where, ...what, skip: random(3), ...(isRead ? { path: '/ports/', method: 'GET' } : {}) }
}

/** Shorter schedules that may fail as this one does, the shortest first: halves, quarters, and without single steps. */
export function* shorterThan(schedule: Schedule): Generator<Schedule> {
  const { steps } = schedule
  for (let size = Math.ceil(steps.length / 2); size >= 1; size = size === 1 ? 0 : Math.ceil(size / 2))
    for (let from = 0; from < steps.length; from += size)
      yield { ...schedule, steps: [...steps.slice(0, from), ...steps.slice(from + size)] }
  for (const [index, step] of steps.entries())
    for (const smaller of smallerThan(step)) yield { ...schedule, steps: steps.with(index, smaller) }
  if (schedule.reserve > 0) yield { ...schedule, reserve: 0 }
  if (schedule.coolDownMs > 0) yield { ...schedule, coolDownMs: 0 }
}

function* smallerThan(step: Step): Generator<Step> {
  if (step.step === 'kill') yield step.of
  if (step.step !== 'together') return
  for (const [index] of step.parts.entries()) yield { ...step, parts: step.parts.toSpliced(index, 1) }
}

/** The schedule as a reader wants it, a line each. */
export function describeSchedule({ steps, ...rest }: Schedule): string {
  return [JSON.stringify(rest), ...steps.map(step => `  ${describeStep(step)}`)].join('\n')
}

function describeStep(step: Step): string {
  const { step: name, ...rest } = step
  if (step.step === 'together') return `together: ${step.parts.map(describeStep).join(' | ')}`
  if (step.step === 'kill')
    return `kill ${step.fuse.moment} ${step.fuse.at} ${step.fuse.count} of: ${describeStep(step.of)}`
  return `${name} ${Object.entries(rest)
    .map(([key, value]) => `${key}=${typeof value === 'object' ? JSON.stringify(value) : value}`)
    .join(' ')}`.trim()
}
