// Lists: walking a cursor to the end, both orders, filters, and the walk that the server does itself.
import assert from 'node:assert/strict'

import { all, check, client } from './checks.mjs'

const COUNT = 112
const sdk = client()

async function walk(list, request) {
  const ids = []
  let pages = 0
  let cursor
  do {
    const page = await list({ ...request, cursor })
    pages += 1
    ids.push(...page.items.map((item) => item.id))
    cursor = page.items.length > 0 ? page.cursor : undefined
  } while (cursor)
  return { ids, pages }
}

const made = []
await check('make them', async () => {
  for (let index = 0; index < COUNT; index += 1) {
    const meta = { tier: index % 4 === 0 ? 'gold' : 'iron', half: index % 2 === 0, odd: `a b&c=ü/+${index % 3}` }
    made.push((await sdk.contact.create({ name: `Contact ${index}`, meta })).id)
  }
})

const list = (request) => sdk.contact.list(request)

await check('newest first, to the end', async () => {
  const { ids, pages } = await walk(list, { take: 25 })
  assert.deepEqual(ids, made.toReversed())
  // Four full pages, one of twelve, and the empty one that says so.
  assert.equal(pages, 6)
})

await check('oldest first, to the end', async () => {
  const { ids } = await walk(list, { take: 40, order: 'asc' })
  assert.deepEqual(ids, made)
})

await check('a page has a hundred at most', async () => {
  const page = await sdk.contact.list()
  assert.equal(page.items.length, 100)
  assert.equal(page.cursor, page.items.at(-1).id)
})

await check('one word of meta', async () => {
  const { ids } = await walk(list, { take: 10, meta: { tier: 'gold' } })
  assert.equal(ids.length, COUNT / 4)
})

await check('a flag and a word of meta', async () => {
  const { items } = await sdk.contact.list({ meta: { half: true, tier: 'iron' } })
  assert.equal(items.length, COUNT / 4)
  assert.ok(items.every((item) => item.meta.half === true && item.meta.tier === 'iron'))
})

await check('a word of meta that needs every escape', async () => {
  const { items } = await sdk.contact.list({ meta: { odd: 'a b&c=ü/+1' } })
  assert.equal(items.length, made.filter((_, index) => index % 3 === 1).length)
})

await check('nobody has that word', async () => {
  assert.deepEqual((await sdk.contact.list({ meta: { tier: 'lead' } })).items, [])
})

await check('the whole list as a stream', async () => {
  const events = await all(sdk.contact.list({ order: 'asc' }).stream())
  assert.ok(events.every((event) => event.type === 'item'))
  assert.deepEqual(
    events.map((event) => event.data.id),
    made
  )
})

await check('the first thirty as a stream', async () => {
  const events = await all(sdk.contact.list({ order: 'asc', take: 30, meta: { tier: 'gold' } }).stream())
  assert.equal(events.length, COUNT / 4)
})
