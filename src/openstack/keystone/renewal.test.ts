// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { deadlineIn } from '#base'
import { OpenStackError } from '../error.ts'
import type { ErrorKind } from '../errors.ts'
import type { Limits } from '../limits.ts'
import { secret } from '../secret.ts'
import type { TokenCache } from './cache.ts'
import { createTokens } from './renewal.ts'
import type { Token } from './token.ts'

const limits = (ms = 5_000): Limits => ({ deadline: deadlineIn(ms) })

const failure = (kind: ErrorKind, type = 'Test') =>
  new OpenStackError({ service: 'keystone', action: 'log in', reason: kind, status: 0, type, kind, effect: 'none' })

/** A Keystone that counts, a clock that is set by hand, and tokens that live 1000 s. */
function bench(options: { cache?: TokenCache; answer?: (count: number, limits: Limits) => Promise<void> } = {}) {
  const state = { now: 1_000_000_000_000, logins: 0 }
  const login = async (each: Limits): Promise<Token> => {
    state.logins++
    const id = `t${state.logins}`
    await (options.answer ?? (() => nextTurn()))(state.logins, each)
    return tokenOf(id, state.now)
  }
  const tokens = createTokens({
    login,
    cache: options.cache,
    late: () => failure('transient', 'TimeOut'),
    now: () => state.now,
  })
  return { state, tokens }
}

const tokenOf = (id: string, now: number): Token => ({
  id: secret(id),
  receivedAtMs: now,
  expiresAtMs: now + 1_000_000,
  user: { id: 'u', name: 'u' },
  project: { id: 'p', name: 'p' },
  roles: [],
  catalog: [],
})

const nextTurn = () => new Promise<void>(resolve => setImmediate(resolve))
const settle = () => new Promise(resolve => setTimeout(resolve, 5))

test('current() makes one login for 500 callers, at the start and after the end of the token', async () => {
  const { state, tokens } = bench()
  const first = await Promise.all(Array.from({ length: 500 }, () => tokens.current(limits())))
  assert.equal(state.logins, 1)
  assert.equal(new Set(first).size, 1)
  state.now += 2_000_000
  await Promise.all(Array.from({ length: 500 }, () => tokens.current(limits())))
  assert.equal(state.logins, 2)
})

test('current() renews after 80 % of the life, and nobody waits for it', async () => {
  const { state, tokens } = bench({ answer: count => (count === 1 ? Promise.resolve() : nextTurn()) })
  const first = await tokens.current(limits())
  state.now += 790_000
  assert.equal(await tokens.current(limits()), first)
  assert.equal(state.logins, 1)
  state.now += 20_000
  assert.equal(await tokens.current(limits()), first, 'the old one is good until the new one is there')
  await settle()
  assert.notEqual(await tokens.current(limits()), first)
  assert.equal(state.logins, 2)
})

test('current() goes on with the old token while Keystone is away', async () => {
  const { state, tokens } = bench({
    answer: count => (count === 1 ? Promise.resolve() : Promise.reject(failure('transient'))),
  })
  const first = await tokens.current(limits())
  for (let minutes = 0; minutes < 3; minutes++) {
    state.now = 1_000_000_000_000 + 810_000 + minutes * 60_000
    assert.equal(await tokens.current(limits()), first)
    assert.equal(await tokens.current(limits()), first)
    await settle()
  }
  assert.equal(state.logins, 4, 'one try per pause, not per call')
  state.now += 1_000_000
  await assert.rejects(tokens.current(limits()), /Cannot log in/)
})

test('replace() makes one login for all that were refused', async () => {
  const { state, tokens } = bench()
  const first = await tokens.current(limits())
  const next = await Promise.all(Array.from({ length: 100 }, () => tokens.replace(first, limits())))
  assert.equal(state.logins, 2)
  assert.equal(new Set(next).size, 1)
  assert.equal(await tokens.replace(first, limits()), next[0], 'a late refusal of the old one costs nothing')
  assert.equal(state.logins, 2)
})

test('current() does not repeat refused credentials at once', async () => {
  const { state, tokens } = bench({ answer: () => Promise.reject(failure('auth')) })
  for (let call = 0; call < 50; call++) await assert.rejects(tokens.current(limits()), /auth/)
  assert.equal(state.logins, 1)
  state.now += 11_000
  await assert.rejects(tokens.current(limits()))
  assert.equal(state.logins, 2)
})

test('current() lets one caller give up while others wait, and ends the login with the last', async () => {
  let ended = false
  const { state, tokens } = bench({
    answer: (_count, each) =>
      new Promise((_resolve, reject) => {
        each.signal?.addEventListener('abort', () => {
          ended = true
          reject(failure('transient', 'Aborted'))
        })
      }),
  })
  const controller = new AbortController()
  const patient = tokens.current({ deadline: deadlineIn(5_000), signal: controller.signal })
  await assert.rejects(tokens.current(limits(5)), { type: 'TimeOut' })
  assert.equal(ended, false)
  controller.abort()
  await assert.rejects(patient, { type: 'TimeOut' })
  assert.equal(ended, true)
  assert.equal(state.logins, 1)
})

test('current() takes the token that another process left in the cache, under the lock', async () => {
  let stored: Token | undefined
  const cache: TokenCache = {
    read: async () => stored,
    write: async token => {
      stored = token
    },
  }
  const order: string[] = []
  let tail: Promise<unknown> = Promise.resolve()
  const state = { now: 1_000_000_000_000, logins: 0 }
  const process = () =>
    createTokens({
      login: async () => {
        state.logins++
        await settle()
        return tokenOf(`t${state.logins}`, state.now)
      },
      cache,
      withLock: body => {
        const run = tail.then(() => {
          order.push('locked')
          return body()
        })
        tail = run.catch(() => undefined)
        return run
      },
      late: () => failure('transient', 'TimeOut'),
      now: () => state.now,
    })
  const found = await Promise.all(Array.from({ length: 64 }, () => process().current(limits())))
  assert.equal(state.logins, 1)
  assert.equal(new Set(found.map(token => token.id.reveal())).size, 1)
  assert.ok(order.length >= 1)

  state.now += 810_000
  await Promise.all(Array.from({ length: 64 }, () => process().current(limits())))
  assert.equal(state.logins, 2, 'an old token is renewed by the first and found by the others')
})

test('replace() does not take the refused token back from the cache', async () => {
  const state = { now: 1_000_000_000_000 }
  let stored: Token | undefined = tokenOf('revoked', state.now)
  const { tokens } = bench({
    cache: {
      read: async () => stored,
      write: async token => {
        stored = token
      },
    },
  })
  const first = await tokens.current(limits())
  assert.equal(first.id.reveal(), 'revoked')
  const next = await tokens.replace(first, limits())
  assert.equal(next.id.reveal(), 't1')
  assert.equal(stored?.id.reveal(), 't1')
})
