// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Logger } from 'pino'
import type { Health } from '#openstack'
import type { CloudSessions } from '#plugins'
import { watchLevels } from './levels.ts'

test('watchLevels(): of two users of one cloud the one that is worse off is told of, once', t => {
  t.mock.timers.enable({ apis: ['setInterval'] })
  const cloud = { name: 'c', authUrl: 'http://keystone.test' }
  const sick: Health = { level: 'serve-held', reason: 'it fails', retryMs: 1 }
  const well: Health = { level: 'normal', retryMs: 0 }
  const sessions = [
    { cloud, health: () => sick },
    { cloud, health: () => well },
  ]
  const clouds = { list: () => sessions } as unknown as CloudSessions
  const lines: string[] = []
  const log = (fields: { service: string }, text: string) => void lines.push(`${fields.service}: ${text}`)
  using _watch = watchLevels(clouds, { info: log, warn: log } as unknown as Logger)
  t.mock.timers.tick(3_000)
  assert.deepEqual(lines.splice(0), ['network: cloud is sick', 'compute: cloud is sick'])
  sessions.shift()
  t.mock.timers.tick(3_000)
  assert.deepEqual(lines, ['network: cloud serves again', 'compute: cloud serves again'])
})
